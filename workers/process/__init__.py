"""Child processes for code that may crash, and memory shared with them."""
