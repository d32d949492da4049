"""Job: build a version again from the source files, and say what differs.

    ray job submit --working-dir . -- python jobs/reproduce.py 3 --project examples/flights

The same function, options and exit codes as `raypipe reproduce`; submitting it again builds it once more.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["reproduce"]
    main()
