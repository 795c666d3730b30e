"""A run: the pipeline, and what is shown and exported while it goes on."""
