"""What a run found: read from its tables, shown on a terminal, drawn on its photos."""
