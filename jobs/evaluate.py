"""Job: evaluate the trained model, and register it if it passes its gate.

    ray job submit --working-dir . -- python jobs/evaluate.py --project examples/flights

The same function, options and exit codes as `raypipe evaluate`; submitting it again finishes what is missing.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["evaluate"]
    main()
