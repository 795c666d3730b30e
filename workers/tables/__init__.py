"""Results as tables, and tables as Parquet files."""
