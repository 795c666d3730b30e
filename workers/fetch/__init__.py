"""Reads the bytes of an image from a file, a part of a file, a tar file or a Parquet column."""
