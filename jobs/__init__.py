"""What decides: the command line, the pipeline, planning, the ledger. Runs in the driver."""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())  # else Python prints warnings by itself
