"""Job: add rows to the online state that running endpoints answer from.

    ray job submit --working-dir . -- python jobs/ingest.py --project examples/flights --source flights FILE.parquet

The same function, options and exit codes as `raypipe ingest`; submitting it again changes nothing.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["ingest"]
    main()
