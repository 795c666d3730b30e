"""Search: an index of a run in one file, a language to ask it in, and what is found."""
