"""What decides: the command line, the pipeline, planning, the ledger. Runs in the driver."""
