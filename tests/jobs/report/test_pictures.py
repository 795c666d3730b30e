import base64
import hashlib
import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs.report.examples import Example
from jobs.report.pictures import (
    LATE,
    LEAST_SIDE,
    LONG_SIDE,
    MAX_BYTES,
    MAX_DRAWN,
    MAX_FILE,
    REFUSED,
    Picture,
    around,
    picture_of,
    take_pictures,
)
from jobs.results.draw import class_colour
from jobs.results.images import Box, ImageRow
from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from tests.jobs.report.made_runs import write_photo


def row(index: int, path: Path, boxes: tuple[Box, ...] = ()) -> ImageRow:
    data = path.read_bytes()
    size = Image.open(io.BytesIO(data)).size
    return ImageRow(
        index, None, str(path), "", *size, "JPEG", len(data), hashlib.sha256(data).digest(), 1, boxes=boxes
    )


def read(uri: str) -> bytes:
    return Path(uri).read_bytes()


def opened(picture: Picture) -> Image.Image:
    head, data = picture.uri.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_photo_is_made_small_with_its_boxes(tmp_path: Path) -> None:
    box = Box(7, "dog", 0.5, 100, 200, 300, 500)
    image = row(0, write_photo(tmp_path / "a.jpg", 1600, 1200), (box,))
    picture = take_pictures([Example(0)], {0: image}, read, 10**8)[Example(0)]
    assert isinstance(picture, Picture)
    assert (picture.width, picture.height) == opened(picture).size == (LONG_SIDE, LONG_SIDE * 3 // 4)
    (outline,) = picture.outlines
    assert (outline.x, outline.y, outline.width, outline.height) == (25, 50, 50, 75)
    assert outline.colour == "#{:02x}{:02x}{:02x}".format(*class_colour(7))
    small = np.asarray(opened(picture)).astype(int)
    whole = np.asarray(Image.open(tmp_path / "a.jpg").resize(opened(picture).size)).astype(int)
    assert np.abs(small - whole).mean() < 3


def test_a_small_photo_stays_as_it_is(tmp_path: Path) -> None:
    image = row(0, write_photo(tmp_path / "a.jpg", 60, 40))
    picture = take_pictures([Example(0)], {0: image}, read, 10**8)[Example(0)]
    assert isinstance(picture, Picture)
    assert (picture.width, picture.height, picture.outlines) == (60, 40, ())


def test_a_box_is_cut_out_of_the_whole_photo_with_what_is_around(tmp_path: Path) -> None:
    boxes = (Box(0, "a", 0.9, 0, 0, 1600, 1200), Box(1, "b", 0.8, 1000, 600, 1040, 620))
    image = row(0, write_photo(tmp_path / "a.jpg", 1600, 1200), boxes)
    picture = take_pictures([Example(0, 1)], {0: image}, read, 10**8)[Example(0, 1)]
    assert isinstance(picture, Picture)
    assert (picture.width, picture.height) == (LEAST_SIDE, LEAST_SIDE * 3 // 4)
    (outline,) = picture.outlines
    assert (outline.name, outline.width, outline.height) == ("b", 40, 20)
    left, top = 1020 - picture.width / 2, 610 - picture.height / 2
    assert (outline.x, outline.y) == (1000 - left, 600 - top)
    part = Image.open(tmp_path / "a.jpg").crop((int(left), int(top), int(left) + 96, int(top) + 72))
    assert np.abs(np.asarray(opened(picture)).astype(int) - np.asarray(part).astype(int)).mean() < 3


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_cut_out_holds_its_box_and_lies_within_the_photo(
    size: tuple[int, int], corners: tuple[float, float, float, float]
) -> None:
    width, height = size
    (x1, x2), (y1, y2) = sorted(corners[:2]), sorted(corners[2:])
    left, top, right, bottom = around(
        Box(0, "a", 1, x1 * width, y1 * height, x2 * width, y2 * height), width, height
    )
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert left - 1 <= x1 * width <= x2 * width <= right + 1
    assert top - 1 <= y1 * height <= y2 * height <= bottom + 1


def test_of_a_crowd_the_best_scores_are_drawn_the_best_on_top() -> None:
    scores = np.random.default_rng(1).permutation(300) / 300
    boxes = tuple(Box(0, "a", float(score), 0, 0, 10, 10) for score in scores)
    pixels = np.zeros((20, 20, 3), np.uint8)
    image = ImageRow(0, None, "a", "", 20, 20, "JPEG", 1, b"", 1, boxes=boxes)
    drawn = [outline.score for outline in picture_of(pixels, image).outlines]
    assert drawn == sorted(scores)[-MAX_DRAWN:]


def test_a_picture_of_noise_takes_no_more_bytes_than_another() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (400, 400, 3), np.uint8)
    image = ImageRow(0, None, "a", "", 400, 400, "PNG", 1, b"", 1)
    assert len(picture_of(pixels, image).uri) < MAX_BYTES * 1.4


def test_a_photo_is_read_once_for_all_its_examples(tmp_path: Path) -> None:
    box = Box(0, "a", 0.9, 0, 0, 10, 10)
    image = row(0, write_photo(tmp_path / "a.jpg", 60, 40), (box,))
    asked = []

    def count(uri: str) -> bytes:
        asked.append(uri)
        return read(uri)

    taken = take_pictures([Example(0), Example(0, 0), Example(0, note="again")], {0: image}, count, 10**8)
    assert len(asked) == 1
    assert [type(one) for one in taken.values()] == [Picture] * 3


def test_what_cannot_be_shown_says_why_and_the_others_are_shown(tmp_path: Path) -> None:
    images = {n: row(n, write_photo(tmp_path / f"{n}.jpg", 60, 40)) for n in range(5)}
    write_photo(tmp_path / "1.jpg", 61, 40)
    (tmp_path / "2.jpg").unlink()
    images[3] = ImageRow(3, None, images[3].uri, "", 10**5, 10**5, "JPEG", 1, images[3].sha256, 1)
    images[4] = ImageRow(4, None, images[4].uri, "", 60, 40, "JPEG", MAX_FILE + 1, images[4].sha256, 1)
    taken = take_pictures([Example(n) for n in (4, 3, 2, 1, 0)], images, read, 10**8)
    reasons = {one.manifest_index: why for one, why in taken.items() if isinstance(why, str)}
    assert reasons.keys() == {1, 2, 3, 4}
    assert reasons[1] == "the file has changed since it was labelled"
    assert "No such file" in reasons[2]
    assert reasons[3] == reasons[4] == "too large for a report"


def test_photos_are_read_in_the_order_of_rows(tmp_path: Path) -> None:
    images = {n: row(n, write_photo(tmp_path / f"{n}.jpg", 60, 40)) for n in range(5)}
    asked = []

    def count(uri: str) -> bytes:
        asked.append(Path(uri).stem)
        return read(uri)

    taken = take_pictures([Example(n) for n in (3, 0, 4, 1, 2)], images, count, 10**8)
    assert asked == ["0", "1", "2", "3", "4"]
    assert len(taken) == 5


def test_a_photo_of_more_pixels_than_the_job_allows_is_not_decoded(tmp_path: Path) -> None:
    image = row(0, write_photo(tmp_path / "a.jpg", 60, 40))
    assert take_pictures([Example(0)], {0: image}, read, 2399) == {Example(0): "cannot be read (TOO_LARGE)"}


def refuses(code: ErrorCode) -> Callable[[str], bytes]:
    def read(_: str) -> bytes:
        raise ImageError(Stage.FETCH, code, "s3://user:secret@bucket does not answer")

    return read


def test_a_store_that_gives_nothing_is_not_asked_for_every_photo(tmp_path: Path) -> None:
    images = {n: row(n, write_photo(tmp_path / f"{n}.jpg", 60, 40)) for n in range(5)}
    taken = take_pictures([Example(n) for n in range(5)], images, refuses(ErrorCode.NETWORK), 10**8)
    assert list(taken.values()) == ["cannot be read now (NETWORK)"] * 3 + [REFUSED] * 2


def test_photos_that_are_gone_are_looked_for_one_by_one(tmp_path: Path) -> None:
    images = {n: row(n, write_photo(tmp_path / f"{n}.jpg", 60, 40)) for n in range(5)}
    taken = take_pictures([Example(n) for n in range(5)], images, refuses(ErrorCode.NOT_FOUND), 10**8)
    assert list(taken.values()) == ["cannot be read (NOT_FOUND)"] * 5


def test_a_photo_that_does_not_arrive_ends_the_reading(tmp_path: Path) -> None:
    images = {n: row(n, write_photo(tmp_path / f"{n}.jpg", 60, 40)) for n in range(3)}
    asked, done = [], threading.Event()

    def hang(uri: str) -> bytes:
        asked.append(uri)
        if uri.endswith("1.jpg"):
            done.wait(30)
        return read(uri)

    examples = [Example(n) for n in range(3)]
    taken = take_pictures(examples, images, hang, 10**8, patience_s=3)
    done.set()
    assert isinstance(taken[examples[0]], Picture)
    assert (taken[examples[1]], taken[examples[2]]) == (LATE, LATE)
    assert len(asked) == 2


@pytest.mark.parametrize("patience_s", [0.0, -1.0])
def test_without_time_no_photo_is_read(tmp_path: Path, patience_s: float) -> None:
    image = row(0, write_photo(tmp_path / "a.jpg", 60, 40))
    assert take_pictures([Example(0)], {0: image}, refuses(ErrorCode.INTERNAL), 10**8, patience_s) == {
        Example(0): LATE
    }
