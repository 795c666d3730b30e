"""The command line: options in, one call a command, an exit code out."""
