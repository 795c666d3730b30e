"""What crosses a process or file boundary: the job spec, tables, ledger records, error codes, exceptions."""
