"""The ids of submitted jobs: names that no two of them share, and that are told from a run directory."""

import re
import secrets
from datetime import UTC, datetime

_ID = re.compile(r"raylabel-\d{8}T\d{6}-[0-9a-f]{8}")


def new_submission_id() -> str:
    """An id that no other submission has, and that sorts by time."""
    return f"raylabel-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def is_submission_id(text: str) -> bool:
    """Whether a text is such an id."""
    return _ID.fullmatch(text) is not None
