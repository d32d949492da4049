"""Job: make the version that served before the champion again.

    ray job submit --working-dir . -- python jobs/rollback.py --from 3 --project examples/flights

The same function, options and exit codes as `raypipe rollback`; with --from, submitting it again changes nothing.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["rollback"]
    main()
