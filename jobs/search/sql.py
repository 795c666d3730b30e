"""A piece of SQL with the values of its placeholders."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL.

    Attributes:
        text: with a `?` for each value.
        parameters: the values.
        needs_images: whether it is about columns of images, beside their rows in the manifest.
    """

    text: str
    parameters: tuple[Any, ...] = ()
    needs_images: bool = False
