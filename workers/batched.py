"""Splits items into lists of a fixed size."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last may be shorter (as itertools.batched in Python 3.12)."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
