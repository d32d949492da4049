"""Metrics, slices, baselines, gates and the report."""
