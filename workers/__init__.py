"""What runs next to the data: storage, fetch, decode, models, table writing. Never imports ray."""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())  # else Python prints warnings by itself
