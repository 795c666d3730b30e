"""The models: where they come from, how they are built, how a batch runs through one."""
