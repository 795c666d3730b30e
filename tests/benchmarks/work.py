"""The work that all contestants do: both models on every photo, a table of labels and one of boxes.

Peers get the project's own torch modules, called as their users would call them: all compute the same.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.tasks import ClassifierSpec, DetectorSpec
from workers.models.registry import load

CORES = len(os.sched_getaffinity(0))

Image = NDArray[np.uint8]
"""RGB, (height, width, 3)."""

Answer = dict[str, Any]
"""label_id, label, score, objects (a list of class_id, class_name, score, x1, y1, x2, y2), processed_at."""


@dataclass(frozen=True)
class Job:
    """What a contestant's process is asked for.

    Attributes:
        photos: the folder of files.
        output: where the tables go.
        tuned: as far as the documentation allows, or as the documentation has it.
        nothing: touch every pixel instead of running the models.
        batch_size: of the models, where tuned.
    """

    photos: Path
    output: Path
    tuned: bool
    nothing: bool
    batch_size: int

    @property
    def files(self) -> list[str]:
        """The photos' paths."""
        return sorted(str(file) for file in self.photos.glob("*.jpg"))

    def build(self) -> "Models | Nothing":
        """What answers: one thread and channels-last where tuned."""
        if self.tuned:
            torch.set_num_threads(1)
        return Nothing() if self.nothing else Models(channels_last=self.tuned)


def asked() -> Job:
    """The job that this process's command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--nothing", action="store_true")
    parser.add_argument("--batch-size", type=int, default=4)
    return Job(**vars(parser.parse_args()))


def complete(**facts: object) -> None:
    """Tells the contest that the last table is written."""
    print(json.dumps({"event": "complete", **facts}), flush=True)


class Models:
    """EfficientNet-Lite0 and NanoDet-g, eager."""

    def __init__(self, *, channels_last: bool = False) -> None:
        classifier, detector = load(ClassifierSpec()), load(DetectorSpec())
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.prepare = classifier.model.transform
        self.classifier = classifier.model.module.eval().to(memory_format=self._layout)
        self.detector = detector.model.module.eval().to(memory_format=self._layout)
        self._labels, self._classes = classifier.model.categories, detector.model.categories
        self._threshold = DetectorSpec().score_threshold

    def __call__(self, images: Sequence[Image]) -> list[Answer]:
        """The answers for some images."""
        tensors = [tensor_of(image) for image in images]
        return self.label(torch.stack([self.prepare(tensor) for tensor in tensors]), tensors)

    @torch.inference_mode()
    def label(self, inputs: Tensor, tensors: Sequence[Tensor]) -> list[Answer]:
        """The answers for some images that were prepared for the classifier.

        Args:
            inputs: (n, 3, 224, 224).
            tensors: the images, uint8 (3, height, width).
        """
        logits = self.classifier(inputs.contiguous(memory_format=self._layout))
        scores, ids = logits.softmax(1).max(1)
        found = self.detector(list(tensors))
        now = datetime.now(UTC)
        return [
            answer(now, i, self._labels[i], score, self._objects(objects))
            for i, score, objects in zip(ids.tolist(), scores.tolist(), found, strict=True)
        ]

    def _objects(self, found: dict[str, Tensor]) -> list[dict[str, Any]]:
        """torchvision's dictionary as rows."""
        kept = found["scores"] > self._threshold
        columns = (found[name][kept].tolist() for name in ("labels", "scores", "boxes"))
        return [
            {"class_id": i, "class_name": self._classes[i], "score": score}
            | dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
            for i, score, box in zip(*columns, strict=True)
        ]


class Nothing:
    """Stands for the models and only touches every pixel."""

    def __call__(self, images: Sequence[Image]) -> list[Answer]:
        """The brightest value of each image as its label."""
        now = datetime.now(UTC)
        return [answer(now, int(image.max()), "", 0, []) for image in images]


def tensor_of(image: Image) -> Tensor:
    """An image as torch has it: (3, height, width), without a copy where it may be written to."""
    return torch.from_numpy(image if image.flags.writeable else image.copy()).permute(2, 0, 1)


def answer(at: datetime, label_id: int, label: str, score: float, objects: list[dict[str, Any]]) -> Answer:
    """One image's row, with its objects in it."""
    return {"label_id": label_id, "label": label, "score": score, "objects": objects, "processed_at": at}


OBJECT = pa.struct(
    [("class_id", pa.int32()), ("class_name", pa.string())]
    + [(name, pa.float32()) for name in ("score", "x1", "y1", "x2", "y2")]
)
LABELS = pa.schema(
    [
        ("uri", pa.string()),
        ("label_id", pa.int32()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("object_count", pa.int32()),
        ("processed_at", pa.timestamp("us", "UTC")),
    ]
)
BOXES = pa.schema([("uri", pa.string()), *OBJECT])


def label_row(uri: str, found: Answer) -> dict[str, Any]:
    """A row of the labels table."""
    row = {name: value for name, value in found.items() if name != "objects"}
    return {"uri": uri, **row, "object_count": len(found["objects"])}


def box_rows(uri: str, found: Answer) -> list[dict[str, Any]]:
    """An image's rows of the boxes table."""
    return [{"uri": uri, **each} for each in found["objects"]]


def write_tables(output: Path, part: str, uris: Sequence[str], answers: Sequence[Answer]) -> None:
    """Both tables of some images, a file each."""
    rows = list(zip(uris, answers, strict=True))
    labels = [label_row(uri, found) for uri, found in rows]
    boxes = [row for uri, found in rows for row in box_rows(uri, found)]
    for name, schema, table in (("labels", LABELS, labels), ("boxes", BOXES, boxes)):
        (output / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(table, schema), output / name / f"{part}.parquet")
