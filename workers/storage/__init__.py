"""Paths and URLs: local disks and object stores, with the same few verbs."""
