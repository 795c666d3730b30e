"""Bytes of an image: from a file, a part of one, a tar file or a Parquet column."""
