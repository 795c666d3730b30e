"""What the maker of an ONNX file wrote into it: class names, sizes, the task. Text, never executed."""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.exceptions import ModelError
from schemas.tasks import MAX_SIDE
from workers.models.onnx.file import MAX_METADATA, OnnxFile
from workers.models.preprocess import Size
from workers.printable import one_line, short_line

_ULTRALYTICS = ("detect", "classify", "segment", "pose", "obb")
"""The tasks that Ultralytics writes."""

_MAX_CLASSES = 100_000
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Metadata:
    """The entries of a file's metadata that are read.

    Attributes:
        name: of the file, for messages.
        entries: all of them, as text.
    """

    name: str
    entries: Mapping[str, str]

    @property
    def task(self) -> str:
        """What Ultralytics says it was exported for: "detect", "classify", ...; "" where it says nothing."""
        task = self.entries.get("task", "").strip()
        return task if task in _ULTRALYTICS else ""

    @property
    def size(self) -> Size | None:
        """The size of the input, as Ultralytics writes it: height and width; None where it is none."""
        value = _value(self.entries.get("imgsz", ""))
        sides = value if isinstance(value, list) else [value] * 2
        if len(sides) == 2 and all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
            return sides[0], sides[1]
        return None

    @property
    def has_nms(self) -> bool:
        """Whether Ultralytics says that the network's answer needs no suppression of doubled boxes."""
        args = _value(self.entries.get("args", ""))
        flags = [self.entries.get("end2end", ""), self.entries.get("nms", "")]
        flags.append(str(args.get("nms", "")) if isinstance(args, dict) else "")
        return any(flag.strip().lower() == "true" for flag in flags)

    def names(self) -> tuple[str, ...] | None:
        """The class names, by class id; None where there are none.

        Raises:
            ModelError: they are no list and no dictionary of class ids and names, or no text.
        """
        text = self.entries.get("names", "")
        if not text.strip():
            return None
        if len(text) > MAX_METADATA:
            raise self._no_names(f"it has {len(text):,} characters, over {MAX_METADATA:,}")
        value = _value(text)
        if isinstance(value, dict):
            value = _in_order(value)
        if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
            raise self._no_names(f"found {short_line(text, 60)!r}")
        for number, name in enumerate(value):
            if not name.strip() or name != one_line(name) or len(name) > _LONGEST_NAME:
                raise self._no_names(f"class {number} is called {short_line(name, 60)!r}")
        return tuple(name.strip() for name in value)

    def _no_names(self, why: str) -> ModelError:
        return ModelError(
            f"{self.name}: its metadata `names` gives no class names: {why}; state them as `categories:`, "
            "a list or a text file with one on each line"
        )


def metadata_of(file: OnnxFile) -> Metadata:
    """A file's metadata."""
    return Metadata(file.name, file.metadata)


def _value(text: str) -> Any:
    """The value of an entry, in JSON or as Python prints it; None of what is neither, or too long."""
    text = text.strip()
    if not re.match(r"[\[({\d]", text) or len(text) > MAX_METADATA:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return list(value) if isinstance(value, tuple) else value


def _in_order(names: Mapping[object, object]) -> list[object] | None:
    """The values of a dictionary whose keys are 0, 1, 2, ..., in this order; None of another one."""
    if len(names) > _MAX_CLASSES:
        return None
    by_number = {str(key): name for key, name in names.items()}
    numbers = [str(number) for number in range(len(names))]
    return [by_number[number] for number in numbers] if by_number.keys() == set(numbers) else None
