import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import LoadedImage
from schemas.locations import NO_URI, Location, TarMember
from schemas.spec import FetchSpec
from tests.workers.image_files import exif, picture
from workers.decode import bands
from workers.decode.picture import Limits
from workers.fetch import large
from workers.fetch.large import LargeFile, large_file
from workers.label.reader import ImageReader


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are read in parts too, and decoded in bands."""
    monkeypatch.setattr(large, "LARGE", 100)
    monkeypatch.setattr(bands, "MIN_PIXELS", 1)
    monkeypatch.setattr(bands, "BAND_PIXELS", 900)


def tiff(path: Path, **options: Any) -> str:
    picture(90, 60).save(path, "TIFF", **options)
    return str(path)


def loaded(location: Location, **options: Any) -> LoadedImage | ImageError:
    (image,) = ImageReader(FetchSpec(**options), Limits(10**8), "cpu", 1, 1, ["exif"])([location])
    return image


@pytest.mark.parametrize("compression", ["raw", "tiff_deflate", "tiff_lzw"])
def test_a_file_that_is_read_in_parts_gives_what_it_gives_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    tags = exif(6)
    tags[0x010F] = "Aff"
    path = tiff(tmp_path / "a.tif", compression=compression, exif=tags)
    parts = loaded(f"file://{path}")
    with monkeypatch.context() as patch:
        patch.setattr(large, "LARGE", 10**9)
        whole = loaded(path)
    assert isinstance(parts, LoadedImage)
    assert isinstance(whole, LoadedImage)
    np.testing.assert_array_equal(parts.decoded.pixels, whole.decoded.pixels)
    assert parts.decoded.exif_orientation == whole.decoded.exif_orientation == 6
    assert parts.sha256 == whole.sha256 == hashlib.sha256(Path(path).read_bytes()).digest()
    assert parts.byte_size == whole.byte_size
    assert parts.facts == whole.facts
    assert parts.facts["camera_make"] == "Aff"


def test_only_a_tiff_of_this_machine_within_the_limit_is_read_in_parts(tmp_path: Path, photos: Path) -> None:
    path = tiff(tmp_path / "a.tif")
    size = Path(path).stat().st_size
    assert large_file(path, size)
    others: list[Location] = [
        *(NO_URI, TarMember(path, "a"), "s3://bucket/a.tif", "file://elsewhere/a.tif", "a\0b", "data:,II*"),
        *(str(tmp_path), str(tmp_path / "gone.tif"), str(photos / "rocket.jpg")),
    ]
    assert [location for location in others if large_file(location, size)] == []
    assert large_file(path, size - 1) is None
    assert large_file(str(photos / "rocket.jpg"), 10**9) is None


def test_parts_are_those_of_the_bytes_and_the_file_is_closed(tmp_path: Path) -> None:
    data = bytes(range(256))
    (tmp_path / "a").write_bytes(data)
    before = len(os.listdir("/proc/self/fd"))
    file = LargeFile(str(tmp_path / "a"))
    for part in (slice(3, 9), slice(-4, None), slice(None), slice(250, 999), slice(300, 400), slice(9, 3)):
        assert file[part] == data[part]
    (tmp_path / "a").write_bytes(data[:10])
    assert file[5:20] == data[5:10]
    assert len(file) == 256
    del file
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_becomes_shorter_or_unreadable_is_a_failed_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiff(tmp_path / "a.tif")
    reader = LargeFile.__getitem__

    def cut(file: LargeFile, part: slice) -> bytes:
        return reader(file, part)[: max(0, 9_000 - part.indices(len(file))[0])]

    monkeypatch.setattr(LargeFile, "__getitem__", cut)
    image = loaded(path)
    assert isinstance(image, ImageError)
    assert (image.stage, image.code) == (Stage.DECODE, ErrorCode.TRUNCATED)

    def fails(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(LargeFile, "__getitem__", reader)
    monkeypatch.setattr(os, "pread", fails)
    image = loaded(path)
    assert isinstance(image, ImageError)
    assert image.stage == Stage.FETCH
    assert "Input/output error" in image.message
