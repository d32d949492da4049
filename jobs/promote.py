"""Job: make a version the champion, if it passed its gate.

    ray job submit --working-dir . -- python jobs/promote.py 3 --project examples/flights

The same function, options and exit codes as `raypipe promote`.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["promote"]
    main()
