"""The steps from Parquet to a champion: cached by identity, resumable, with progress."""
