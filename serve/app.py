"""Entry point for Ray Serve: the application of a raypipe project.

    serve deploy serve/config.yaml          (on a running cluster)
    serve run serve.app:build project=examples/flights

The champion is looked up when the application is built; replicas are given its bundle by URI and digest.
`raypipe serve --print-config` prints a configuration with the champion resolved, whose redeployment is a
lightweight update: no replica restarts.
"""

from raypipe.serving.app import build

__all__ = ["build"]
