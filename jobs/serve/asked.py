"""What is asked of the page by an address: a run, a query, an order, a part of the hits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from jobs.search.language import All, Test, parse
from jobs.search.language import Any as Either
from jobs.serve.runs import ServedRun
from schemas.exceptions import SpecError
from schemas.words import raylabel_command

PAGE = 48
"""Images on a page."""

MAX_NUMBER = 10**12
"""Of a page or a place among hits."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A search.

    Attributes:
        run: its name; "": the first one.
        q: the query.
        sort: the order; "": the best first.
        page: from 1.
        like: the row of an image that others are to look like; "": none.
        text: what the images are to look like, in words; "": nothing, or like an image.
    """

    run: str = ""
    q: str = ""
    sort: str = ""
    page: int = 1
    like: str = ""
    text: str = ""

    @property
    def compares(self) -> bool:
        """Whether images are to look like something."""
        return bool(self.like or self.text)

    @property
    def offset(self) -> int:
        """Hits before the page."""
        return (self.page - 1) * PAGE

    def href(self, path: str = "/", **changes: Any) -> str:
        """The address of a page for this search, with changes; other names become parameters."""
        own = {name: value for name, value in changes.items() if name in self.__slots__}
        asked = replace(self, **own)
        values = {
            "run": asked.run,
            "q": asked.q,
            "sort": asked.sort,
            "page": asked.page if asked.page > 1 else "",
            "like": asked.like,
            "text": asked.text,
        }
        values |= {name: value for name, value in changes.items() if name not in own}
        query = urlencode({name: value for name, value in values.items() if value not in ("", None)})
        return f"{path}?{query}" if query else path

    def command(self, run: ServedRun) -> str:
        """The same search as a command."""
        options = ["--index", str(run.index)] if run.index else []
        options += [f"--sort={self.sort}"] if self.sort else []
        options += ["--like", self.like] if self.like else []
        options += [f"--text={self.text}"] if self.text else []
        query = ["--", self.q] if self.q.startswith("-") else [self.q] if self.q else []
        return raylabel_command("search", run.output, *options, *query).strip("`")


def asked_of(values: Mapping[str, str]) -> Asked:
    """The search that the parameters of an address ask for."""
    page, like = number_of(values.get("page", "")) or 1, number_of(values.get("like", ""))
    run, query, sort, text = (values.get(name, "").strip() for name in ("run", "q", "sort", "text"))
    return Asked(run, query, sort, page, "" if like is None or text else str(like), text)


def number_of(text: str, most: int = MAX_NUMBER) -> int | None:
    """A number of an address; None: it is none, or more than that."""
    if not re.fullmatch(r"[0-9]{1,15}", text):
        return None
    return number if (number := int(text)) <= most else None


def narrowed(query: str, more: str) -> tuple[str, bool]:
    """A query with a further test; without it where it has it already.

    Args:
        query: as it was asked.
        more: the test.

    Returns:
        The other query, and whether this one has the test.
    """
    try:
        tree = parse(query)
    except SpecError:
        return f"{query} {more}".strip(), False
    for part in tree.parts if isinstance(tree, All) else (tree,):
        if isinstance(part, Test) and query[part.name.start : part.end] == more:
            return " ".join(f"{query[: part.name.start]}{query[part.end :]}".split()), True
    return (f"({query}) {more}" if isinstance(tree, Either) else f"{query} {more}").strip(), False
