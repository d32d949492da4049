"""Job: search for better parameters, and train with them.

    ray job submit --working-dir . -- python jobs/tune.py --project examples/flights

The same function, options and exit codes as `raypipe train --tune`; submitting it again finishes what is missing.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train", "--tune"]
    main()
