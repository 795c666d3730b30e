"""Class maps: other names for a model's classes, as users write them in YAML or CSV."""

import difflib
import io
from collections.abc import Mapping, Sequence

from schemas.exceptions import ManifestError
from schemas.spec_file import TwiceError, parse_yaml
from schemas.words import value_text
from workers.printable import short_line
from workers.records import read_records

ClassMap = Mapping[str, str | None]
"""New names of classes by their names; None for a class that is left out."""

OTHERS = "*"
"""The name in a class map that stands for all classes that it does not name."""

_HEADERS = (["class", "name"], ["from", "to"])
"""The first lines that a class map in CSV may have."""

ENDINGS = (".yaml", ".yml", ".csv")
"""How the names of class maps end."""

_MOST_NAMED = 10
"""Classes that a message names."""


def new_name(name: str, class_map: ClassMap) -> str | None:
    """The name that a class has by a class map; None where it is left out. Its own where nothing names it."""
    return class_map[name] if name in class_map else class_map.get(OTHERS, name)


def parse_class_map(data: bytes, file: str, what: str) -> dict[str, str | None]:
    """The class map in a file.

    Args:
        data: the file's bytes, UTF-8: YAML, `name: new name` each; or CSV that begins with `class,name`. An
            empty name leaves the class out; `*` stands for all classes that are not named.
        file: its name, whose ending tells the format.
        what: the file in messages, which begin with it.

    Raises:
        ValueError: it is something else.
    """
    assert_ending(file, what)
    parse = _from_csv if file.lower().endswith(".csv") else _from_yaml
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    names = parse(text, what)
    if not names:
        raise ValueError(f"{what} names no class; give at least one, or leave it out")
    for new in names.values():
        if new and not new.isprintable():  # a line of a list of names, in many a format
            raise ValueError(f"{what}: found {short_line(repr(new))}; a name is one line of text")
    return names


def assert_ending(file: str, what: str, also: str = "") -> None:
    """Refuses a file that is no class map by its name.

    Args:
        file: its name.
        what: the file in messages, which begin with it.
        also: what is allowed beside files.

    Raises:
        ValueError: it has another ending.
    """
    if not file.lower().endswith(ENDINGS):
        raise ValueError(
            f"{what}: allowed are files that end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}{also}"
        )


def assert_known(name: str, known: Sequence[str], what: str, owner: str) -> None:
    """Refuses a name that no class has.

    Args:
        name: of a class.
        known: the names of all classes.
        what: the message begins with it.
        owner: has the classes: "the run's detector".

    Raises:
        ValueError: with the names that are close, or else the first of all.
    """
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=3) or list(known[:_MOST_NAMED])
    dots = ", …" if len(close) == _MOST_NAMED else ""
    raise ValueError(
        f"{what}: {owner} has no class {short_line(name)!r}; "
        f"it has {len(known):,}, such as {', '.join(close)}{dots}"
    )


def _from_yaml(text: str, what: str) -> dict[str, str | None]:
    try:
        values = parse_yaml(text)
    except TwiceError as error:
        raise ValueError(f"{what}: {error}; name each class once") from None
    except ValueError as error:
        raise ValueError(f"{what} is not YAML: {error}") from None
    if not isinstance(values, dict):
        found = _KINDS.get(type(values), "one value")
        raise ValueError(f"{what}: found {found}; allowed is a line `name: new name` for each class, in YAML")
    for name, new in values.items():
        if name is None:
            raise ValueError(f"{what}: found a new name without the name of a class before it")
        if isinstance(new, list | dict):
            raise ValueError(
                f"{what}: found {_KINDS[type(new)]} as the new name of {short_line(value_text(name))}; "
                "allowed is one name, or none to leave the class out"
            )
        for value in (name, new):
            if not isinstance(value, str | None):
                found = short_line(value_text(value))
                raise ValueError(f"{what}: found {found}, which YAML reads as no text; write it in quotes")
    return {name: new or None for name, new in values.items()}


_KINDS: dict[type, str] = {type(None): "an empty file", list: "a list", dict: "keys and values"}
"""What YAML may hold in place of names."""


def _from_csv(text: str, what: str) -> dict[str, str | None]:
    try:
        records = list(read_records(io.StringIO(text, newline=""), what))
    except ManifestError as error:
        raise ValueError(str(error)) from None
    header = [value.strip() for value in records[0].values] if records else []
    if header not in _HEADERS:
        found = short_line(",".join(header)) if records else "nothing"
        raise ValueError(f"{what}: the first line must be class,name (or from,to); found {found}")
    names: dict[str, str | None] = {}
    for line, row in records[1:]:
        if len(row) != len(header):
            raise ValueError(
                f"{what}, line {line}: allowed are 2 values, a class and its new name; "
                f"found {len(row)}. A name with a comma needs quotes"
            )
        name, new = (value.strip() for value in row)
        if name in names:
            raise ValueError(f"{what}, line {line}: {short_line(name)!r} is there twice")
        names[name] = new or None
    return names
