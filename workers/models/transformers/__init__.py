"""Hugging Face folders: their files, networks and image processors."""
