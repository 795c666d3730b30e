"""What crosses a process or a file boundary: the job spec, the tables, the ledger, error codes, exceptions."""
