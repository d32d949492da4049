"""Job: everything, from the Parquet files to a champion.

    ray job submit --working-dir . -- python jobs/run.py --project examples/flights

The same function, options and exit codes as `raypipe run`; submitting it again finishes what is missing.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["run"]
    main()
