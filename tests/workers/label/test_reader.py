import hashlib
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import LoadedImage
from schemas.locations import NO_URI
from schemas.spec import FetchSpec
from workers.decode.picture import Limits
from workers.label.reader import ImageReader


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_images_come_in_order_each_as_pixels_or_as_its_own_failure(
    photos: Path, tmp_path: Path, device: str
) -> None:
    (tmp_path / "half.jpg").write_bytes((photos / "china.jpg").read_bytes()[:50_000])
    names = [str(path) for path in sorted(photos.glob("*.[pj]*g"))]
    locations: list[Any] = [
        *names,
        NO_URI,
        str(tmp_path / "gone.jpg"),
        str(tmp_path / "half.jpg"),
        *reversed(names),
    ]
    read = ImageReader(FetchSpec(concurrency=3), Limits(10**8), device, threads=2, decode_ahead=2)
    outcomes = [
        hashlib.sha256(Path(location).read_bytes()).digest()
        if isinstance(image, LoadedImage) and isinstance(location, str)
        else (image.stage, image.code)
        for location, image in zip(locations, read(locations), strict=True)
        if isinstance(image, LoadedImage | ImageError)
    ]
    digests = [hashlib.sha256(Path(name).read_bytes()).digest() for name in names]
    failed = [
        (Stage.LIST, ErrorCode.NOT_FOUND),
        (Stage.FETCH, ErrorCode.NOT_FOUND),
        (Stage.DECODE, ErrorCode.TRUNCATED),
    ]
    assert len(names) == 7
    assert outcomes == [*digests, *failed, *reversed(digests)]


def test_a_loaded_image_says_what_its_file_was(photos: Path) -> None:
    data = (photos / "rocket.jpg").read_bytes()
    read = ImageReader(FetchSpec(), Limits(10**8), "cpu", threads=1, decode_ahead=1)
    (image,) = read([str(photos / "rocket.jpg")])
    assert isinstance(image, LoadedImage)
    assert (image.byte_size, image.sha256) == (len(data), hashlib.sha256(data).digest())
    assert (image.decoded.format, image.decoded.width, image.decoded.height) == ("JPEG", 640, 427)


def test_what_is_asked_for_next_is_read_meanwhile(photos: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jpg", tmp_path / "second.jpg"
    data = (photos / "rocket.jpg").read_bytes()
    first.write_bytes(data)
    second.write_bytes(data)
    read = ImageReader(FetchSpec(), Limits(10**8), "cpu", threads=1, decode_ahead=1)
    list(read([str(first)], prefetch=[str(second)]))
    for fetching in read._prefetched.values():
        fetching.result()
    second.unlink()
    (image,) = read([str(second)])
    assert isinstance(image, LoadedImage)
    (again,) = read([str(second)])
    assert isinstance(again, ImageError)


def test_what_was_read_ahead_in_vain_changes_nothing(photos: Path) -> None:
    names = [str(path) for path in sorted(photos.glob("*.[pj]*g"))]
    read = ImageReader(FetchSpec(concurrency=2), Limits(10**8), "cuda", threads=2, decode_ahead=2)
    list(read(names[:2], prefetch=names[5:]))
    digests_read = [
        image.sha256 for image in read(names[2:5], prefetch=names) if isinstance(image, LoadedImage)
    ]
    assert digests_read == [hashlib.sha256(Path(name).read_bytes()).digest() for name in names[2:5]]
