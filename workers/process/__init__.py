"""Processes for what may crash, and memory shared with them."""
