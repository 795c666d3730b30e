"""What is done of a run: attempts, commits, published shards. Files alone; no process has to live."""
