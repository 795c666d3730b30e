"""What a query means, evaluated over the tables of a run image by image, without SQL and the index."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.results.datasets import open_table
from workers.ledger.runs import find_run

Holds = Callable[["Image"], bool]


@dataclass
class Image:
    """An image, with all that is known of it.

    Attributes:
        columns: of its row in labels or errors.
        error: its code; None of a labelled one.
        found: by kind of term and name: scores, and shares of the image of objects.
    """

    columns: dict[str, Any]
    error: str | None
    found: dict[tuple[str, str], list[tuple[float, float | None]]] = field(default_factory=dict)

    def count(self, name: str) -> int:
        return len(self.found.get(("class", name), []))

    def best(self, kind: str, name: str) -> float | None:
        return max((score for score, _ in self.found.get((kind, name), [])), default=None)

    def area(self, name: str) -> float | None:
        return max(
            (area for _, area in self.found.get(("class", name), []) if area is not None), default=None
        )


def images_of(output: str, min_label_score: float = 0.1) -> dict[int, Image]:
    """The images of a run, by their rows in the manifest."""
    tables = {name: rows_of(output, name) for name in find_run(output).tables.names if name != "embeddings"}
    images = {row["manifest_index"]: Image(row, None) for row in tables["labels"]}
    images |= {row["manifest_index"]: Image(row, row["code"]) for row in tables["errors"]}
    for row in tables["labels"]:
        for place, entry in enumerate(row["topk"] or ()):
            if not place or entry["score"] >= np.float32(min_label_score):
                add(images[row["manifest_index"]], "label", entry["label"], entry["score"])
    for row in tables["boxes"]:
        area = (row["x2"] - row["x1"]) * (row["y2"] - row["y1"]) / (row["width"] * row["height"])
        add(images[row["manifest_index"]], "class", row["class_name"], row["score"], float(np.float32(area)))
    for row in tables.get("tags", []):
        kind = "label" if row["tagger"] == "classifier" else f"tagger.{row['tagger']}"
        add(images[row["manifest_index"]], kind, row["label"], row["score"])
    return images


def add(image: Image, kind: str, name: str, score: float, area: float | None = None) -> None:
    image.found.setdefault((kind, name), []).append((score, area))


def rows_of(output: str, name: str) -> list[dict[str, Any]]:
    table: pa.Table = open_table(output, name).to_table()
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": lambda value, limit: value >= limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
    "=": lambda value, limit: value == limit,
    "!=": lambda value, limit: value != limit,
}


def has(name: str, *kinds: str) -> Holds:
    return lambda image: any((kind, name) in image.found for kind in kinds)


def counted(name: str, operator: str, limit: float) -> Holds:
    return lambda image: image.error is None and OPERATORS[operator](image.count(name), limit)


def scored(name: str, operator: str, limit: float, *kinds: str) -> Holds:
    def holds(image: Image) -> bool:
        if operator == "!=":
            return image.error is None and not scored(name, "=", limit, *kinds)(image)
        scores = [score for kind in kinds if (score := image.best(kind, name)) is not None]
        return any(OPERATORS[operator](np.float32(score), np.float32(limit)) for score in scores)

    return holds


def sized(name: str, operator: str, limit: float) -> Holds:
    def holds(image: Image) -> bool:
        if operator == "!=":
            return image.error is None and not sized(name, "=", limit)(image)
        area = image.area(name)
        return area is not None and OPERATORS[operator](np.float32(area), np.float32(limit))

    return holds


def compared(column: str, operator: str, limit: Any) -> Holds:
    def holds(image: Image) -> bool:
        value = image.columns.get(column)
        if operator == "!=":
            return not compared(column, "=", limit)(image)
        if isinstance(limit, str) and operator == "=":
            return value is not None and value.lower() == limit.lower()
        return value is not None and OPERATORS[operator](value, limit)

    return holds


def contains(column: str, text: str) -> Holds:
    return lambda image: text.lower() in str(image.columns.get(column) or "").lower()


def failed_with(code: str) -> Holds:
    return lambda image: image.error is not None and code in ("*", image.error)


def within(column: str, operator: str, low: date, high: date) -> Holds:
    """A comparison with a year, a month or a day, whose first moment and the one after its last are given."""

    def holds(image: Image) -> bool:
        value = image.columns.get(column)
        if value is None:
            return operator == "!="
        answers: dict[str, bool] = {
            ">=": value >= low,
            "<": value < low,
            ">": value >= high,
            "<=": value < high,
            "=": low <= value < high,
            "!=": not low <= value < high,
        }
        return answers[operator]

    return holds
