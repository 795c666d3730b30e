"""What works without Ray, next to the data: storage, manifests, images, models, tables, the ledger."""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())  # else Python prints warnings by itself
