"""Units to results: the actors, and the processes that decode and label for them."""
