"""Decodes image files to upright 8-bit RGB pixels."""
