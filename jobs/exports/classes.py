"""The classes of an export: those of the detector, chosen and renamed."""

import difflib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.results.images import Box
from schemas.exceptions import ManifestError, SpecError
from schemas.spec_file import parse_yaml
from workers.manifest.formats.records import read_records
from workers.printable import message_of, short_line

PLACEHOLDERS = ("__background__", "N/A")
"""Categories of torchvision's detectors that no object has."""

_HEADER = ["class", "name"]
"""The first line of a class map in CSV."""

_MOST_NAMED = 10
"""Classes that a message names."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of an export.

    Attributes:
        names: of them; a class id of the export is an index into it.
        ids: class id by the detector's own name of a class; without those that are left out.
    """

    names: tuple[str, ...]
    ids: Mapping[str, int]

    def renamed(self, boxes: Iterable[Box]) -> tuple[Box, ...]:
        """Boxes with their class in the export; without those whose class is left out."""
        ids, names = self.ids, self.names
        return tuple(
            Box(ids[box.class_name], names[ids[box.class_name]], box.score, box.x1, box.y1, box.x2, box.y2)
            for box in boxes
            if box.class_name in ids
        )


def classes_of(
    categories: Sequence[str], only: Collection[str] = (), new_names: Mapping[str, str | None] | None = None
) -> Classes:
    """The classes of an export: all that the detector knows, in its order, so that all exports have the same.

    Args:
        categories: of the detector.
        only: those of them that are exported; empty: all.
        new_names: of them, None for a class that is left out; a class that is not in it keeps its name. Those
            with the same new name become one, at the place of the first.

    Raises:
        SpecError: a class is none of the detector's, or none is left.
    """
    known = [name for name in dict.fromkeys(categories) if name not in PLACEHOLDERS]
    for option, names in (("--classes", only), ("--class-map", new_names or {})):
        for name in names:
            _assert_known(name, known, option)
    ids: dict[str, int] = {}
    names_: dict[str, int] = {}
    for name in known:
        new = (new_names or {}).get(name, name)
        if new is not None and (not only or name in only):
            ids[name] = names_.setdefault(new, len(names_))
    if not names_:
        raise SpecError("--classes and --class-map leave no class; keep at least one")
    return Classes(tuple(names_), ids)


def _assert_known(name: str, known: list[str], option: str) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=3) or known[:_MOST_NAMED]
    dots = ", …" if len(close) == _MOST_NAMED else ""
    raise SpecError(
        f"{option}: the run's detector has no class {short_line(name)!r}; "
        f"it has {len(known)}, such as {', '.join(close)}{dots}"
    )


def split_names(values: Collection[str], known: Collection[str]) -> list[str]:
    """Names given one by one or with commas between them; a class may have a comma in its name.

    Raises:
        SpecError: there are values, but no name in them.
    """
    names: list[str] = []
    for value in values:
        names += [value] if value in known else [name for part in value.split(",") if (name := part.strip())]
    if values and not names:
        raise SpecError("--classes names no class; name at least one, or leave it out for all")
    return names


def read_class_map(file: Path) -> dict[str, str | None]:
    """New names of classes by their names; None for those to leave out.

    Args:
        file: YAML, `name: new name` each; or CSV that begins with `class,name`. An empty name leaves out.

    Raises:
        SpecError: it cannot be read, or is something else.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--class-map {file} cannot be read: {message_of(error)}") from None
    if file.suffix.lower() == ".csv":
        names = _from_csv(text, file)
    elif file.suffix.lower() in {".yaml", ".yml"}:
        names = _from_yaml(text, file)
    else:
        raise SpecError(f"--class-map {file}: allowed are files that end in .yaml, .yml or .csv")
    for new in names.values():
        if new and not new.isprintable():  # a line of a list of names, in many a format
            raise SpecError(f"--class-map {file}: found {short_line(repr(new))}; a name is one line of text")
    return names


def _from_yaml(text: str, file: Path) -> dict[str, str | None]:
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise SpecError(f"--class-map {file} is not YAML: {short_line(str(error))}") from None
    if not isinstance(values, dict):
        raise SpecError(f"--class-map {file}: allowed is `name: new name` for each class, in YAML")
    for value in (*values, *values.values()):
        if not isinstance(value, str | None):
            raise SpecError(f"--class-map {file}: found {value!r}, which is no text; write it in quotes")
    return {name: new or None for name, new in values.items()}


def _from_csv(text: str, file: Path) -> dict[str, str | None]:
    try:
        records = list(read_records(io.StringIO(text, newline=""), f"--class-map {file}"))
    except ManifestError as error:
        raise SpecError(str(error)) from None
    if not records or records[0].values != _HEADER:
        found = short_line(",".join(records[0].values)) if records else "nothing"
        raise SpecError(f"--class-map {file}: the first line must be {','.join(_HEADER)}; found {found}")
    names: dict[str, str | None] = {}
    for line, row in records[1:]:
        if len(row) != len(_HEADER):
            raise SpecError(
                f"--class-map {file}, line {line}: allowed are 2 values, a class and its new name; "
                f"found {len(row)}. A name with a comma needs quotes"
            )
        if row[0] in names:
            raise SpecError(f"--class-map {file}, line {line}: {short_line(row[0])!r} is there twice")
        names[row[0]] = row[1] or None
    return names
