"""Bytes of an image file to upright 8-bit RGB pixels."""
