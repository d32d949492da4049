"""Point-in-time windows: raypipe beside what can be written for one process with Polars and numpy, or with DuckDB."""
