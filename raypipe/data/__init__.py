"""Snapshots, contracts and quarantine, splits, atomic publish."""
