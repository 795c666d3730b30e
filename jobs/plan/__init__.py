"""`raylabel plan`: what a job will take, from a sample of its images."""
