"""An image of 400 megapixels through classifier and detector, in a process whose memory is looked at."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE, TILE = 20_000, 400

LABEL = """
import dataclasses, json, sys
from pathlib import Path
from schemas.plan import Pass, Plan
from schemas.spec import DecodeSpec, FetchSpec
from schemas.tasks import ClassifierSpec, DetectorSpec, TilesSpec
from tests.workers.label.models import settings_of_models
from tests.workers.label.test_supervise import settings_of
from workers.label.labeller import Labeller
from workers.label.settings import UnitRequest

folder = Path(sys.argv[1])
names = sorted(path.name for path in folder.glob("*.tif"))
settings = dataclasses.replace(
    settings_of(folder, names),
    **settings_of_models(ClassifierSpec(), DetectorSpec(tiles=TilesSpec(size=4096), score_threshold=0.3)),
    decode=DecodeSpec(max_pixels=400_000_000),
    fetch=FetchSpec(max_bytes=2_000_000_000),
)
label = Labeller(settings)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024
results, _ = label(UnitRequest(0, range(len(names))), lambda _: None)
status = Path("/proc/self/status").read_text()
rows = results.to_pylist()
print(json.dumps({
    "before": before,
    "peak": int(status.split("VmHWM:")[1].split()[0]) * 1024,
    "sizes": [(row["width"], row["height"]) for row in rows],
    "errors": [row["error"] and row["error"]["message"] for row in rows],
}))
"""


def page(path: Path, tags: dict[int, list[int]], body: bytes, size: int) -> None:
    """Writes a TIFF whose pixels are some bytes, and zeros up to a size, which take no room on the disk."""
    entries, values = b"", b""
    behind = 8 + size + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):
        value = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(value) > 4:
            place = struct.pack("<I", behind + len(values))
            values, value = values + value, place
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + value
    with path.open("wb") as file:
        file.write(struct.pack("<2sHI", b"II", 42, 8 + size) + body)
        file.seek(8 + size)
        file.write(struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + values)


COMMON = {256: [SIDE], 257: [SIDE], 258: [8, 8, 8], 262: [2], 277: [3]}


def tiled(path: Path, photos: Path) -> None:
    """A photo, compressed once, in all tiles."""
    photo = Image.open(photos / "astronaut.png").convert("RGB").resize((TILE, TILE))
    body = zlib.compress(np.asarray(photo).tobytes())
    count = (SIDE // TILE) ** 2
    places = {322: [TILE], 323: [TILE], 324: [8] * count, 325: [len(body)] * count}
    page(path, {**COMMON, 259: [8], **places}, body, len(body) + len(body) % 2)


def plain(path: Path, photos: Path) -> None:  # noqa: ARG001 - the face of both
    """Black, in strips that are not compressed."""
    rows = 16
    strip, count = rows * SIDE * 3, SIDE // rows
    places = {273: [8 + n * strip for n in range(count)], 278: [rows], 279: [strip] * count}
    page(path, {**COMMON, 259: [1], **places}, b"", count * strip)


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiled, plain])
def test_images_of_20000_by_20000_pixels_take_their_pixels_and_little_more(
    make: object, tmp_path: Path, photos: Path
) -> None:
    assert callable(make)
    for number in range(2):
        make(tmp_path / f"{number}.tif", photos)
    done = subprocess.run(
        [sys.executable, "-c", LABEL, tmp_path],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == [None, None]
    assert found["sizes"] == [[SIDE, SIDE]] * 2
    pixels = 3 * SIDE * SIDE
    assert pixels < found["peak"] - found["before"] < pixels + 400 * 10**6
    assert found["peak"] < 3 * 10**9
