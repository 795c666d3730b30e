"""Manifests of every format, as rows that are read by position."""
