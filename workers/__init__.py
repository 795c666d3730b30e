"""What runs next to the data: storage, fetch, decode, models, table writing. Never imports ray."""
