"""Turns results into tables, and tables into Parquet files."""
