"""What makes the process that labels crash: a model that some images kill, a broken decoder."""

import ctypes
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from PIL import Image

from schemas.errors import ErrorCode, RowError, Stage
from schemas.metrics import Usage
from schemas.tables import ERROR
from workers.label.settings import LabelFunction, LabelSettings, UnitRequest
from workers.process.serve import StageCallback
from workers.tables.results import results_table

if TYPE_CHECKING:
    from workers.models.model import ClassifierModel, DetectorModel

CRASH_MARK, ENDLESS_MARK = b"\xff\xfe\x00\x07CRASH", b"\xff\xfe\x00\x09ENDLESS"
"""Comments that a JPEG may have."""


def break_decoder() -> None:
    """From now on JPEGs with a mark make this process crash, or compute for ever."""
    import simplejpeg

    decode = simplejpeg.decode_jpeg

    def decode_jpeg(data: bytes, *arguments: object, **options: object) -> object:
        if CRASH_MARK in data:
            os.abort()
        while ENDLESS_MARK in data:
            pass
        return decode(data, *arguments, **options)

    simplejpeg.decode_jpeg = decode_jpeg


def poisoned() -> "ClassifierModel":
    """A classifier that says whether an image is blue, and that some colours are bad for.

    It reads address 0 at a red image, takes 4 GB at a white one, raises at a green one, says NaN of a yellow
    one and computes for ever at a black one. Whoever builds it has a broken decoder besides.
    """
    import torch

    from workers.models.model import ClassifierModel

    break_decoder()

    class Poisoned(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            red, green, blue = (images.mean(dim=(2, 3)) > 0.9).unbind(1)
            while (images.mean(dim=(1, 2, 3)) < 0.1).any():
                pass
            if (red & ~green).any():
                ctypes.string_at(0)
            if (red & green & blue).any():
                hoard = torch.ones(2**30)
                time.sleep(60)
                del hoard
            if (green & ~red).any():
                raise RuntimeError("I do not like green")
            logits = torch.stack([blue.float(), 0.5 * torch.ones(len(images))], dim=1)
            logits[red & green] = float("nan")
            return logits

    def transform(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(image[None] / 255, (4, 4))[0]

    return ClassifierModel(module=Poisoned(), transform=transform, categories=("blue", "other"))


COLOURS = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "grey": (99, 99, 99),
    "red": (255, 0, 0),
    "white": (255, 255, 255),
    "green": (0, 255, 0),
    "yellow": (255, 255, 0),
}


def slow_detector() -> "DetectorModel":
    """A detector that finds nothing in 0.15 s of processor time, and computes for ever where red is 77."""
    return _finds_nothing(0.15)


def quick_detector() -> "DetectorModel":
    """A detector that finds nothing in no time."""
    return _finds_nothing(0)


def _finds_nothing(seconds: float) -> "DetectorModel":
    import torch

    from workers.models.model import DetectorModel, as_is

    class FindsNothing(torch.nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            return [self.found(image) for image in images]

        def found(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            began = time.thread_time()
            while time.thread_time() - began < seconds or bool((image[0, :9, :9] == 77).all()):
                pass
            labels = torch.zeros(0, dtype=torch.int64)
            return {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": labels}

    return DetectorModel(module=FindsNothing(), transform=as_is, categories=("nothing",))


def paint(folder: Path) -> None:
    """Writes an image of each colour, named so."""
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 20), colour).save(folder / f"{name}.png")


def killed_by(poison: str, job: LabelSettings) -> LabelFunction:
    """Labels without models, and dies of some rows: a child that is up in no time."""
    deadly = {int(row) for row in poison.split()}

    def label(request: UnitRequest, _: StageCallback) -> tuple[pa.Table, Usage]:
        rows = request.rows
        if deadly.intersection(rows):
            os.abort()
        manifest_rows = job.manifest.read(rows).for_results()
        error = RowError(Stage.DECODE, ErrorCode.TRUNCATED, "", 1, datetime(2026, 1, 1, tzinfo=UTC))
        table = results_table(request.unit, manifest_rows, [error] * len(rows), job.tables)
        labelled = table.set_column(table.column_names.index("error"), "error", pa.nulls(len(rows), ERROR))
        return labelled, Usage(fetched_bytes=len(rows))

    return label


def broken_decoder(job: LabelSettings) -> LabelFunction:
    """Decodes for others, and dies of JPEGs with the mark."""
    from workers.label.decoder import Decoder

    break_decoder()
    return Decoder(job)
