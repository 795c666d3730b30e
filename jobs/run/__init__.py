"""A run: the pipeline, and what is printed and exported while it runs."""
