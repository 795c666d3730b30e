"""The Ray cluster: joined, sized, and jobs submitted to it."""
