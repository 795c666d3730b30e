"""What makes the process that labels crash: a model that some images kill, a broken decoder."""

import os
from datetime import UTC, datetime

import pyarrow as pa

from schemas.errors import ErrorCode, RowError, Stage
from schemas.tables import ERROR
from workers.child import Note
from workers.label import Label, LabelSettings
from workers.results import ResultColumns, results_table

POISON_MODEL = '''
import ctypes, time
import torch
from workers.models.model import ClassifierModel

class Poison(torch.nn.Module):
    """Says whether an image is blue; reads address 0 at red ones, hoards memory at white ones."""
    def forward(self, images):
        red, green, blue = images.mean(dim=(2, 3)).unbind(1)
        if (red - green > 0.9).any():
            ctypes.string_at(0)
        if (green > 0.9).any():
            hoard = torch.ones(2**30)  # 4 GB
            time.sleep(60)
        return torch.stack([blue - red, red - blue + 0.5], dim=1)

def build() -> ClassifierModel:
    transform = lambda image: torch.nn.functional.interpolate(image[None] / 255, (4, 4))[0]
    return ClassifierModel(module=Poison(), transform=transform, categories=("blue", "other"))
'''

CRASH_MARK = b"\xff\xfe\x00\x07CRASH"
"""A comment that a JPEG may have."""

BROKEN_DECODER = """
import os
import simplejpeg

decode = simplejpeg.decode_jpeg

def decode_jpeg(data, *arguments, **options):
    if b"CRASH" in data:
        os.abort()
    return decode(data, *arguments, **options)

simplejpeg.decode_jpeg = decode_jpeg
"""
"""Run by Python at its start where it is on the path as sitecustomize.py."""


def killed_by(poison: str, job: LabelSettings) -> Label:
    """Labels without models, and dies of some rows: a child that is up in no time."""
    deadly = {int(row) for row in poison.split()}

    def label(request: tuple[int, list[int]], _: Note) -> pa.Table:
        unit, rows = request
        if deadly.intersection(rows):
            os.abort()
        found = job.manifest.read(rows)
        error = RowError(Stage.DECODE, ErrorCode.TRUNCATED, "", 1, datetime(2026, 1, 1, tzinfo=UTC))
        table = results_table(unit, found, [error] * len(rows), ResultColumns(None, None, pa.schema([])))
        return table.set_column(table.column_names.index("error"), "error", pa.nulls(len(rows), ERROR))

    return label
