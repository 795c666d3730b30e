import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.serve.asked import Asked, asked_of, narrowed, number_of


@pytest.mark.parametrize(
    ("query", "more", "narrower", "is_on"),
    [
        ("", "class:dog", "class:dog", False),
        ("person", "class:dog", "person class:dog", False),
        ("person OR cat", "class:dog", "(person OR cat) class:dog", False),
        ("person class:dog", "class:dog", "person", True),
        ("class:dog", "class:dog", "", True),
        ("-class:dog", "class:dog", "-class:dog class:dog", False),
        ('a="x y" person', 'a="x y"', "person", True),
        ("(class:dog OR cat) x", "class:dog", "(class:dog OR cat) x class:dog", False),
        ("person (", "class:dog", "person ( class:dog", False),
    ],
)
def test_a_facet_is_added_to_a_query_or_taken_away(query: str, more: str, narrower: str, is_on: bool) -> None:
    assert narrowed(query, more) == (narrower, is_on)


def test_an_address_has_what_is_asked_and_nothing_else() -> None:
    asked = asked_of({"run": "b", "q": " a&b <c> ", "sort": "-taken", "page": "3", "other": "x"})
    assert asked == Asked("b", "a&b <c>", "-taken", 3)
    assert asked.href() == "/?run=b&q=a%26b+%3Cc%3E&sort=-taken&page=3"
    assert asked.href("/image/5", page=1, sort="", at="7") == "/image/5?run=b&q=a%26b+%3Cc%3E&at=7"
    assert Asked().href() == "/"


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "٣", "x", "1" * 16, " 1", "0x1"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert number_of(text) is None
    assert asked_of({"page": text}).page == 1


@pytest.mark.parametrize("query", ["", "dog person>=2", "-cat", 'it\'s "a" $(rm) `x`'])
def test_the_command_is_the_query_as_a_shell_takes_it(query: str) -> None:
    run: Any = SimpleNamespace(output="/my runs/today", index=Path("/x/an index"))
    words = shlex.split(Asked(q=query, sort="-taken").command(run))
    rest = [query] if query else []
    rest = ["--", *rest] if query.startswith("-") else rest
    assert words == ["raylabel", "search", "/my runs/today", "--index", "/x/an index", "--sort=-taken", *rest]
