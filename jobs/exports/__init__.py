"""Results for other tools: `raylabel export`, one file a format."""
