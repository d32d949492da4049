"""Job: score a table with the champion.

    ray job submit --working-dir . -- python jobs/score.py rows.parquet --project examples/flights

The same function, options and exit codes as `raypipe score`; submitting it again finishes what is missing.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["score"]
    main()
