"""The classes of an export: those of the detector, chosen and renamed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.results.images import Box
from schemas.exceptions import SpecError
from workers.class_map import OTHERS, ClassMap, assert_known, new_name, parse_class_map
from workers.printable import message_of

PLACEHOLDERS = ("__background__", "N/A")
"""Categories of torchvision's detectors that no object has."""


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
            replace(box, class_id=ids[box.class_name], class_name=names[ids[box.class_name]])
            for box in boxes
            if box.class_name in ids
        )


def classes_of(
    categories: Sequence[str], only: Collection[str] = (), new_names: ClassMap | None = None
) -> Classes:
    """The classes of an export: all that the detector knows, in its order, so that all exports have the same.

    Args:
        categories: of the detector.
        only: those of them that are exported; empty: all.
        new_names: of them. Those with the same new name become one, at the place of the first.

    Raises:
        SpecError: a class is none of the detector's, or none is left.
    """
    known = [name for name in dict.fromkeys(categories) if name not in PLACEHOLDERS]
    mapped = [name for name in new_names or () if name != OTHERS]
    for option, names in (("--classes", only), ("--class-map", mapped)):
        for name in names:
            _assert_known(name, known, option)
    ids: dict[str, int] = {}
    names_: dict[str, int] = {}
    for name in known:
        new = new_name(name, new_names or {})
        if new is not None and (not only or name in only):
            ids[name] = names_.setdefault(new, len(names_))
    if not names_:
        raise SpecError("--classes and --class-map leave no class; keep at least one")
    return Classes(tuple(names_), ids)


def _assert_known(name: str, known: list[str], option: str) -> None:
    try:
        assert_known(name, known, option, "the run's detector")
    except ValueError as error:
        raise SpecError(str(error)) from None


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


def read_class_map(file: Path) -> ClassMap:
    """New names of classes by their names; None for those to leave out; see `parse_class_map`.

    Raises:
        SpecError: it cannot be read, or is none.
    """
    what = f"--class-map {file}"
    try:
        return parse_class_map(file.read_bytes(), file.name, what)
    except OSError as error:
        raise SpecError(f"{what} cannot be read: {message_of(error)}") from None
    except ValueError as error:
        raise SpecError(str(error)) from None
