"""A run checked against its own records, from its files alone."""
