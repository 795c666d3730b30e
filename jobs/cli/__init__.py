"""The command line: reads options, calls one function per command, returns an exit code."""
