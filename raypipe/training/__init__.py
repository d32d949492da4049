"""Matrix ingestion, the Ray Train loop, and the trained run."""
