"""The models: where they come from, how they are built, and how a batch is run through one."""
