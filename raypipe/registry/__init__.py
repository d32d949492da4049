"""Bundles (read by replicas), and runs, versions and aliases in MLflow (the control plane's alone)."""
