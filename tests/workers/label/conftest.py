from collections.abc import Iterator

import pytest

from workers import logs


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Actors show log lines from their start; the tests after these show none."""
    yield
    logs.reset()
