"""Ids of submitted jobs: unique, and never mistaken for a run directory."""

import re
import secrets
from datetime import UTC, datetime

_ID = re.compile(r"raylabel-\d{8}T\d{6}-[0-9a-f]{8}")


def new_submission_id() -> str:
    """A unique id that sorts by time."""
    return f"raylabel-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def is_submission_id(text: str) -> bool:
    """Whether a text is the id of a submission."""
    return _ID.fullmatch(text) is not None
