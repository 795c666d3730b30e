"""From a job spec to what can run: sources found, models built, outputs tried."""
