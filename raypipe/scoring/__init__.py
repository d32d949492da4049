"""Batch scoring: a table of request rows in, a version's predictions in partitioned Parquet out."""
