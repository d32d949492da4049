"""Every prediction kept: records in shared memory, then rows of a Delta table, and one of them found again."""
