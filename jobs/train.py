"""Job: train on the training set (built first if need be).

    ray job submit --working-dir . -- python jobs/train.py --project examples/flights

The same function, options and exit codes as `raypipe train`; submitting it again finishes what is missing.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train"]
    main()
