import datetime
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFont

from jobs.results.draw import (
    FURTHER_LETTERS,
    LONG_SIDE,
    PAPER,
    Drawn,
    class_colour,
    contact_sheet,
    draw_image,
    draw_images,
    drawable,
)
from jobs.results.images import Box, Selection, read_images
from jobs.results.sql import Database
from schemas.tables import RunTables
from tests.workers.tables.made_results import record
from workers.ledger.runs import begin_run
from workers.storage.store import Store
from workers.tables.parquet import parquet_bytes
from workers.tables.results import key_of

GREY = np.full((480, 640, 3), 128, np.uint8)
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def png(width: int, height: int, orientation: int = 1) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), (128, 128, 128)).save(file, "PNG", exif=exif)
    return file.getvalue()


def put_run(output: Path, files: dict[str, bytes], boxes: dict[int, list[Box]]) -> None:
    """Writes the tables of a run that labelled the files in order, one shard an image."""
    store = Store(str(output))
    begin_run(store, record())
    for index, (uri, data) in enumerate(files.items()):
        keys = {"manifest_index": index, "uri": uri, "key": key_of(uri), "run_id": "run"}
        keys |= {"width": 640, "height": 480}
        label = keys | {
            "format": "PNG",
            "byte_size": len(data),
            "sha256": hashlib.sha256(data).digest(),
            "exif_orientation": 1,
            "source_mode": "RGB",
            "frame_count": 1,
            "label": "palace",
            "score": 0.75,
            "topk": [{"label_id": 0, "label": "palace", "score": 0.75}],
            "object_count": len(boxes.get(index, [])),
            "processed_at": NOW,
        }
        found = [
            keys
            | {name: getattr(box, name) for name in Box.__slots__}
            | {"object_index": i, "detector": "nanodet"}
            for i, box in enumerate(boxes.get(index, []))
        ]
        _put(store, "labels", index, [label])
        if found:
            _put(store, "boxes", index, found)


def draw_run(
    output: Path,
    into: Path,
    open_image: Callable[[str], bytes],
    limit: int | None = None,
    max_pixels: int = 10**8,
) -> Drawn:
    """Draws the images of a run."""
    with Database({"": str(output)}) as database:
        images = read_images(database, Selection(limit=limit), ["boxes"])
        return draw_images(images, into, open_image, max_pixels)


def _put(store: Store, name: str, shard: int, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=RunTables().schema(name))
    store.write(f"{name}/shard-{shard:05d}.parquet", parquet_bytes(table, name))


def edges(picture: Image.Image, x1: int, y1: int, x2: int, y2: int) -> set[Any]:
    """The colours in the middle of the four edges of a half-open box."""
    middle_x, middle_y = (x1 + x2) // 2, (y1 + y2) // 2
    points = [(middle_x, y1), (middle_x, y2 - 1), (x1, middle_y), (x2 - 1, middle_y)]
    return {picture.getpixel(point) for point in points}


def colours(picture: Image.Image, area: tuple[int, int, int, int]) -> set[Any]:
    return set(picture.crop(area).get_flattened_data())


def test_the_edges_of_a_box_have_the_colour_of_its_class() -> None:
    picture = draw_image(
        GREY, [], [Box(7, "dog", 0.5, 100, 200, 300, 400), Box(3, "cat", 0.9, 400, 50, 640, 480)]
    )
    assert picture.size == (640, 480)
    assert edges(picture, 100, 200, 300, 400) == {class_colour(7)}
    assert edges(picture, 400, 50, 640, 480) == {class_colour(3)}
    assert colours(picture, (120, 220, 280, 380)) == {(128, 128, 128)}  # nothing is drawn inside


def test_a_box_is_separated_from_any_background_by_dark_lines() -> None:
    pixels = np.full((480, 640, 3), class_colour(7), np.uint8)
    picture = draw_image(pixels, [], [Box(7, "dog", 0.5, 100, 200, 300, 400)])
    assert edges(picture, 99, 199, 301, 401) == {PAPER}


def test_the_caption_is_below_the_photo_and_grows_with_runners_up() -> None:
    plain = draw_image(GREY, [], [])
    label = draw_image(GREY, ["palace 0.91"], [])
    full = draw_image(GREY, ["palace 0.91", "monastery 0.03"], [])
    assert plain.height == 480 < label.height < full.height < 480 * 1.3
    for picture in (plain, label, full):
        assert picture.width == 640
        assert colours(picture, (0, 0, 640, 480)) == {(128, 128, 128)}
    assert (255, 255, 255) in colours(full, (0, 480, 640, full.height))
    assert colours(full, (0, full.height - 3, 640, full.height)) == {PAPER}  # text ends above the edge


def test_runners_up_that_do_not_fit_are_left_out_whole() -> None:
    fitting = ["palace 0.91", "monastery 0.03"]
    assert draw_image(GREY, [*fitting, "bell cote " * 20 + "0.01"], []) == draw_image(GREY, fitting, [])


@pytest.mark.parametrize(
    "box", [(0, 0, 640, 480), (630, 0, 640, 10), (0, 470, 10, 480), (630, 470, 640, 480), (300, 5, 310, 20)]
)
@pytest.mark.parametrize(
    "name", ["dog", "a class with a name far too long for a tag on so small a picture, really"]
)
def test_tags_stay_on_the_photo(name: str, box: tuple[int, int, int, int]) -> None:
    picture = draw_image(GREY, ["palace 0.91"], [Box(7, name, 0.5, *box)])
    tag = np.asarray(picture) == class_colour(7)
    rows, columns = np.nonzero(tag.all(axis=2))
    assert rows.max() < 480
    filled = np.bincount(rows).max()  # the widest row of the tag or the box
    assert filled >= 50 or name != "dog"
    assert columns.max() <= 639
    assert colours(picture, (0, 482, 640, 490)) == {PAPER}


def test_tags_of_boxes_in_the_same_place_do_not_hide_one_another() -> None:
    boxes = [Box(i, "dog", 0.5 + i / 10, 200, 150, 400, 300) for i in range(3)]
    pixels = np.asarray(draw_image(GREY, [], boxes)).reshape(-1, 3)
    areas = [int((pixels == class_colour(i)).all(axis=1).sum()) for i in range(3)]
    assert min(areas) > 60 * 15


def test_the_best_score_is_on_top() -> None:
    boxes = [Box(1, "dog", 0.9, 100, 100, 300, 300), Box(2, "cat", 0.4, 100, 100, 300, 300)]
    assert edges(draw_image(GREY, [], boxes), 100, 100, 300, 300) == {class_colour(1)}


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 48), (640, 480)), ((4000, 3000), (1600, 1200)), ((1000, 700), (1000, 700))]
)
def test_photos_are_drawn_at_a_size_that_can_be_read(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    width, height = size
    box = Box(7, "dog", 0.5, width / 4, height / 4, width / 2, height / 2)
    picture = draw_image(np.full((height, width, 3), 128, np.uint8), [], [box])
    assert picture.size == expected
    x, y = expected[0] // 4, expected[1] // 4
    assert edges(picture, x, y, 2 * x, 2 * y) == {class_colour(7)}


def test_a_narrow_photo_stands_in_the_middle_of_a_picture_with_room_for_the_caption() -> None:
    picture = draw_image(np.full((1600, 20, 3), 128, np.uint8), ["palace 0.91"], [])
    assert picture.width == LONG_SIDE[0] // 2
    assert colours(picture, (150, 0, 170, 1600)) == {(128, 128, 128)}
    assert colours(picture, (0, 0, 150, 1600)) == colours(picture, (170, 0, 320, 1600)) == {PAPER}


def test_class_colours_are_stable_and_differ() -> None:
    assert class_colour(0) == (255, 56, 92)
    assert len({class_colour(i) for i in range(91)}) == 91


def test_a_run_is_drawn_in_manifest_order_with_the_boxes_of_each_image(tmp_path: Path) -> None:
    files = {"s3://bucket/b day.png": png(640, 480), "c.png": png(641, 480), "a.png": png(642, 480)}
    put_run(
        tmp_path / "run",
        files,
        {1: [Box(7, "dog", 0.5, 100, 200, 300, 400)], 2: [Box(3, "x", 0.5, 9, 9, 99, 99)]},
    )
    drawn = draw_run(tmp_path / "run", tmp_path / "new" / "pictures", files.__getitem__, limit=2)
    names = ["00000-b_day.jpg", "00001-c.jpg"]
    assert drawn == Drawn([tmp_path / "new" / "pictures" / name for name in names], [])
    assert sorted(path.name for path in (tmp_path / "new" / "pictures").iterdir()) == names
    first, second = (np.asarray(Image.open(path)).astype(int) for path in drawn.pictures)
    assert np.abs(first[:479] - 128).max() < 4  # no boxes
    assert np.abs(second[300, 101] - class_colour(7)).max() < 60  # JPEG blurs a thin line
    assert second.shape[0] > 480  # the caption


def test_boxes_are_drawn_on_the_upright_image(tmp_path: Path) -> None:
    files = {"a.png": png(480, 640, orientation=6)}
    put_run(tmp_path / "run", files, {0: [Box(7, "dog", 0.5, 500, 100, 640, 400)]})
    drawn = draw_run(tmp_path / "run", tmp_path / "pictures", files.__getitem__)
    with Image.open(drawn.pictures[0]) as picture:
        assert picture.width == 640
        assert np.abs(np.subtract(np.asarray(picture)[250, 501], class_colour(7))).max() < 60


def test_images_that_cannot_be_drawn_are_skipped_with_a_note(tmp_path: Path) -> None:
    files = {"gone.png": b"", "text.png": b"no image", "other.png": png(640, 480), "huge.png": png(900, 800)}
    files["good.png"] = png(640, 480)
    put_run(tmp_path / "run", files, {4: [Box(7, "dog", 0.5, 100, 200, 300, 400)]})
    files["other.png"] = png(641, 480)
    del files["gone.png"]
    drawn = draw_run(tmp_path / "run", tmp_path, files.__getitem__, max_pixels=640 * 480)
    assert drawn.pictures == [tmp_path / "00004-good.jpg"]
    assert [note.split(":")[0] for note in drawn.skipped] == ["gone.png", "text.png", "other.png", "huge.png"]
    assert "NOT_AN_IMAGE" in drawn.skipped[1]
    assert drawn.skipped[2] == "other.png: the file has changed since it was labelled"
    assert "TOO_LARGE" in drawn.skipped[3]


def test_a_run_that_published_nothing_draws_nothing(tmp_path: Path) -> None:
    put_run(tmp_path / "run", {}, {})
    assert draw_run(tmp_path / "run", tmp_path / "pictures", dict[str, bytes]().__getitem__) == Drawn([], [])


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg"])
def test_a_contact_sheet_shows_every_picture_uncropped(name: str, tmp_path: Path) -> None:
    sizes = [(640, 480), (300, 600), (800, 200), (500, 500), (640, 480), (640, 400)]
    shades = [(40 * i, 255 - 40 * i, 90) for i in range(len(sizes))]
    pictures = [tmp_path / f"{i}.png" for i in range(len(sizes))]
    for path, size, shade in zip(pictures, sizes, shades, strict=True):
        Image.new("RGB", size, shade).save(path)
    contact_sheet(pictures, tmp_path / name, width=800)
    pixels = np.asarray(Image.open(tmp_path / name)).astype(int)
    assert pixels.shape[1] == 800
    for size, shade in zip(sizes, shades, strict=True):
        rows, columns = np.nonzero(np.abs(pixels - shade).max(axis=2) < 6)
        shown = (columns.max() - columns.min() + 1) / (rows.max() - rows.min() + 1)
        assert shown == pytest.approx(size[0] / size[1], rel=0.05)
    assert np.abs(pixels[:, :3] - 255).max() < 24  # a white border; JPEG rings


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("e\u0301te\u0301 caf\u00e9 0.50", "ete cafe 0.50"),
        ("a\u2026\u00b7\u2019", "a...\u00b7\u2019"),
        ("写真ø", "???"),
        ("½", "1?2"),
    ],
)
def test_a_name_is_drawn_in_letters_that_the_font_has(text: str, drawn: str) -> None:
    assert drawable(text) == drawn
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    empty_box = bytes(font.getmask("\uffff"))
    letters = [chr(code) for code in range(33, 127)] + list(FURTHER_LETTERS)
    assert empty_box not in [bytes(font.getmask(letter)) for letter in letters]


def test_a_contact_sheet_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures"):
        contact_sheet([], tmp_path / "sheet.png")
