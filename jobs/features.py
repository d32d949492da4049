"""Job: check the data and build the training set.

    ray job submit --working-dir . -- python jobs/features.py --project examples/flights

The same function, options and exit codes as `raypipe features`; submitting it again finishes what is missing.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["features"]
    main()
