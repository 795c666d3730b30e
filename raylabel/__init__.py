"""raylabel, as it is installed: the command, beside the packages that do its work."""
