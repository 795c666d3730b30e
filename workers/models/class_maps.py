"""The class maps of a job: files of the user's, and those that are shipped with raylabel."""

import csv
import difflib
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from schemas.exceptions import ModelError
from schemas.tasks import WORDNET, ClassesSpec, DetectorSpec, ModelSpec
from workers.class_map import OTHERS, ClassMap, assert_ending, assert_known, new_name, parse_class_map
from workers.models.weights import read_bytes
from workers.printable import short_line
from workers.storage.uris import clean_uri

Names = tuple[str | None, ...]

_IMAGENET = Path(__file__).parent / "class_maps" / "imagenet_wordnet.csv"


def folded_names(spec: ModelSpec, categories: tuple[str, ...]) -> Names:
    """The names of a model's classes by the class map of its spec, None for those that are left out.

    Empty where there is no map, or it changes nothing.

    Raises:
        ModelError: the map cannot be read or is none, names a class that the model lacks, or leaves no class.
    """
    if not isinstance(spec, ClassesSpec | DetectorSpec) or spec.class_map is None:
        return ()
    try:
        names = (
            _wordnet_names(categories, spec.model)
            if spec.class_map == WORDNET
            else _names_by_file(spec.class_map, categories, spec.model)
        )
    except ValueError as error:
        raise ModelError(str(error)) from None
    return () if names == categories else names


def _names_by_file(location: str, categories: tuple[str, ...], model: str) -> Names:
    what = f"class_map: {clean_uri(location)}"
    file = Path(urlsplit(clean_uri(location)).path).name
    meant = difflib.get_close_matches(file.lower(), [WORDNET])
    hint = f" (did you mean {WORDNET}?)" if meant else ""
    assert_ending(file, what, f", and {WORDNET} for ImageNet's classes{hint}")
    class_map = parse_class_map(read_bytes(location, "class_map: the file"), file, what)
    _assert_fits(class_map, categories, what, model)
    return tuple(new_name(name, class_map) for name in categories)


def _assert_fits(class_map: ClassMap, categories: tuple[str, ...], what: str, model: str) -> None:
    for name in class_map:
        if name != OTHERS:
            assert_known(name, categories, what, model)
    if all(new_name(name, class_map) is None for name in categories):
        raise ValueError(f"{what} leaves {model} no class; keep at least one")


def _wordnet_names(categories: tuple[str, ...], model: str) -> Names:
    """The names of ImageNet's classes: by place if all are there in order, else by what they are called."""
    rows = imagenet()
    if any(tuple(row[column] for row in rows) == categories for column in ("class", "description")):
        return tuple(row["name"] for row in rows)
    names: dict[str, set[str]] = {}
    for row in rows:
        for known in {row["wordnet_id"], row["class"], row["description"]}:
            names.setdefault(known, set()).add(row["name"])
    one = {known: found.pop() for known, found in names.items() if len(found) == 1}
    if others := [name for name in categories if name not in one]:
        is_imagenets = len(others) <= len(categories) / 2
        close = difflib.get_close_matches(others[0], one, n=3) if is_imagenets else []
        hint = f" (it has {', '.join(close)})" if close else ""
        raise ValueError(
            f"class_map: {WORDNET} is for ImageNet's 1,000 classes, but {short_line(others[0])!r} of {model} "
            f"is none of them{hint}; give other classes their names by a file of yours"
        )
    return tuple(one[name] for name in categories)


@cache
def imagenet() -> tuple[dict[str, str], ...]:
    """ImageNet's classes in order: `wordnet_id`, torchvision's `class`, timm's `description`, `name`."""
    with _IMAGENET.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))
