"""Draws labelled photos: boxes with tags on the photo, the label in a caption below it."""

import colorsys
import hashlib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jobs.results.images import Box, ImageRow
from jobs.results.text import as_path, scored
from schemas.spec import DecodeSpec
from workers.decode.decode import decode

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Size = tuple[float, float]
Area = tuple[float, float, float, float]

LONG_SIDE = (640, 1600)
"""Pixels of the long side, least and most; other photos are scaled, so that tags can be read."""

PAPER, INK, FAINT = (24, 26, 30), (255, 255, 255), (172, 178, 188)
"""Colours of the caption: background, label, runners-up."""


PICTURE = re.compile(r"\d{5,}-.+\.jpg")
"""The names of pictures: manifest row, and name of the photo."""

FURTHER_LETTERS = "\u2026\u00b7\u2018\u2019\u201c\u201d"
"""What the font of pictures has beside ASCII."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The result of drawing a run's images.

    Attributes:
        pictures: the files written, in the order of the images.
        skipped: URI and reason of each image that could not be drawn.
    """

    pictures: list[Path]
    skipped: list[str]


def draw_images(
    images: Iterable[ImageRow],
    into: Path,
    open_image: Callable[[str], bytes],
    max_pixels: int = DecodeSpec().max_pixels,
) -> Drawn:
    """Draws labelled images with their boxes, each into a file `00000-name.jpg`.

    Reads the photos again, one at a time. A photo that is unreadable now, or has changed, is skipped.

    Args:
        images: with their boxes.
        into: folder for the pictures, created if missing; the number in a file name is the manifest row.
        open_image: returns the bytes of a `uri` of the tables; any exception of it skips the image.
        max_pixels: as in the job's spec.
    """
    into.mkdir(parents=True, exist_ok=True)
    drawn = Drawn([], [])
    for image in images:
        try:
            pixels = pixels_of(open_image(image.uri), image, max_pixels)
        except Exception as error:  # open_image is the caller's, and every store has exceptions of its own
            drawn.skipped.append(f"{image.uri}: {error or type(error).__name__}")
            continue
        path = into / f"{image.manifest_index:05d}-{_file_name(image.uri)}.jpg"
        captions = [_caption_of(box, image) for box in image.boxes]
        labels = [scored(*entry) for entry in image.topk]
        draw_image(pixels, labels, image.boxes, captions).save(path, quality=92)
        drawn.pictures.append(path)
    return drawn


def _caption_of(box: Box, image: ImageRow) -> str:
    """What is written on a box: its class, and the best tag that each tagger has of it."""
    best = (tag for tag in image.best_tags if tag.object_index == box.object_index)
    return ", ".join([scored(box.class_name, box.score), *(scored(tag.label, tag.score) for tag in best)])


def draw_image(
    pixels: NDArray[np.uint8], labels: list[str], boxes: Sequence[Box], captions: Sequence[str] = ()
) -> Image.Image:
    """The photo with its boxes, and below it a caption if there are labels.

    A photo whose long side is outside `LONG_SIDE` is scaled to it, with its boxes. A photo narrower than a
    caption is centred in a wider picture.

    Args:
        pixels: uint8 (height, width, 3), RGB, upright.
        labels: text of the caption, best first: the label with its score, and the runners-up.
        boxes: in pixels of `pixels`; drawn so that the best score is on top.
        captions: of the boxes; empty: their classes with their scores.
    """
    scale = _scale(pixels.shape[1], pixels.shape[0])
    width, height = (max(1, round(side * scale)) for side in (pixels.shape[1], pixels.shape[0]))
    photo = Image.fromarray(pixels)
    if scale != 1:
        photo = photo.resize((width, height), Image.Resampling.LANCZOS)
    size = math.sqrt(width * height) / 24
    caption = _caption([drawable(label) for label in labels], max(width, LONG_SIDE[0] // 2), size)
    picture = Image.new("RGB", (caption.width, height + caption.height), PAPER)
    left = (picture.width - width) // 2
    picture.paste(photo, (left, 0))
    picture.paste(caption, (0, height))
    captions = captions or [scored(box.class_name, box.score) for box in boxes]
    _draw_boxes(picture, [_placed(box, scale, left) for box in boxes], captions, size, height)
    return picture


def contact_sheet(pictures: list[Path], into: Path, width: int = 1600) -> None:
    """Writes an overview of up to some dozens of pictures, in rows of equal height, uncropped, with names.

    Args:
        pictures: files, in the order of the overview.
        into: the file to write, in the format of its suffix.
        width: of the overview, in pixels.

    Raises:
        ValueError: there are no pictures.
    """
    if not pictures:
        raise ValueError("found no pictures for a contact sheet; it needs at least one")
    gap = width // 130
    rows = _rows([_aspect(path) for path in pictures])
    heights = [round((width - gap * (len(row) + 1)) / sum(row)) for row in rows]
    font, name_height = _font(gap * 1.2), round(gap * 1.6)
    below = gap + name_height
    sheet = Image.new("RGB", (width, sum(heights) + below * len(rows) + gap), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    todo = iter(pictures)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        left = gap
        for aspect in row:
            path = next(todo)
            with Image.open(path) as picture:
                cell = picture.convert("RGB").resize(
                    (round(aspect * height), height), Image.Resampling.LANCZOS
                )
            sheet.paste(cell, (left, top))
            name = _cut(drawable(path.stem), font, cell.width)
            draw.text((left, top + cell.height), name, font=font, fill=PAPER)
            left += cell.width + gap
        top += height + below
    sheet.save(into, quality=90)


def class_colour(class_id: int) -> Colour:
    """The colour of a class id, RGB: always the same, and unlike those of neighbouring ids."""
    hue = (class_id * 0.618034 + 0.97) % 1  # steps of the golden ratio never come close to one another
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.78, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def pixels_of(data: bytes, image: ImageRow, max_pixels: int) -> NDArray[np.uint8]:
    """The pixels of an image by the bytes of its file, uint8 (height, width, 3), RGB, upright.

    Raises:
        ValueError: they are not the bytes that were labelled.
        ImageError: they cannot be decoded within the bounds.
    """
    if hashlib.sha256(data).digest() != image.sha256:
        raise ValueError("the file has changed since it was labelled")
    return decode(data, max_pixels=max_pixels).pixels


def _file_name(uri: str) -> str:
    """The file name of a URI without its suffix, safe in any file system."""
    stem = unicodedata.normalize("NFC", as_path(uri).rsplit("/", 1)[-1].rsplit(".", 1)[0])
    return re.sub(r"[^\w.-]+", "_", stem)[:60] or "image"


def _scale(width: int, height: int) -> float:
    """The factor that brings a photo's long side into `LONG_SIDE`."""
    long_side = max(width, height)
    return min(max(long_side, LONG_SIDE[0]), LONG_SIDE[1]) / long_side


def _placed(box: Box, scale: float, left: int) -> Box:
    """A box of the photo in pixels of the picture."""
    x1, x2 = box.x1 * scale + left, box.x2 * scale + left
    return replace(box, x1=x1, y1=box.y1 * scale, x2=x2, y2=box.y2 * scale)


def drawable(text: str) -> str:
    """A text in letters that the font has: "é" is "e", and what has no such letter is "?"."""
    letters = unicodedata.normalize("NFKD", text)
    return "".join(
        letter if letter.isascii() or letter in FURTHER_LETTERS else "?"
        for letter in letters
        if not unicodedata.combining(letter)
    )


def _font(size: float) -> Font:
    return ImageFont.load_default(max(size, 10))


def _caption(labels: list[str], width: int, size: float) -> Image.Image:
    """The label in large letters, the runners-up in small ones below it; without labels, of height 0."""
    if not labels:
        return Image.new("RGB", (width, 0))
    large, small, pad = _font(size * 1.15), _font(size * 0.8), round(size * 0.6)
    lines = [(_shortened(labels[0], large, width - 2 * pad), large, INK)]
    if runners_up := _fitting(labels[1:], small, width - 2 * pad):
        lines.append((runners_up, small, FAINT))
    tops = [pad]
    for _, font, _ in lines:
        tops.append(tops[-1] + round(_line_height(font) * 1.25))
    caption = Image.new("RGB", (width, tops[-1] + pad // 2), PAPER)
    draw = ImageDraw.Draw(caption)
    for top, (text, font, colour) in zip(tops[:-1], lines, strict=True):
        draw.text((pad, top), text, font=font, fill=colour, anchor="la")
    return caption


def _draw_boxes(
    picture: Image.Image, boxes: list[Box], captions: Sequence[str], size: float, height: int
) -> None:
    """Draws boxes, then their tags, the best score on top; tags stay above the caption at `height`."""
    draw = ImageDraw.Draw(picture)
    ranked = sorted(zip(boxes, captions, strict=True), key=lambda pair: pair[0].score)
    for box, _ in ranked:
        _outline(draw, box, max(2, round(size / 7)))
    font = _font(size * 0.8 * min(1, max(0.6, math.sqrt(12 / max(len(boxes), 1)))))  # a crowd gets small tags
    tags: list[tuple[Area, str, Colour]] = []
    for box, caption in reversed(ranked):  # the best score chooses its area first
        text = _shortened(drawable(caption), font, picture.width - size)
        tag_size = (font.getlength(text) + size * 0.5, _line_height(font) * 1.2)
        area = _tag_area(box, tag_size, (picture.width, height), [tag[0] for tag in tags])
        tags.append((area, text, class_colour(box.class_id)))
    for area, text, colour in reversed(tags):
        draw.rectangle(area, fill=colour)
        middle = ((area[0] + area[2]) / 2, (area[1] + area[3]) / 2)
        draw.text(middle, text, font=font, fill=_ink_on(colour), anchor="mm")


def _outline(draw: ImageDraw.ImageDraw, box: Box, line: int) -> None:
    """The edges in the colour of the class, inside the box, between two thin dark lines."""
    x1, y1 = round(box.x1), round(box.y1)
    x2, y2 = max(x1, round(box.x2) - 1), max(y1, round(box.y2) - 1)
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=PAPER, width=line + 2)
    draw.rectangle((x1, y1, x2, y2), outline=class_colour(box.class_id), width=line)


def _tag_area(box: Box, size: Size, within: Size, taken: list[Area]) -> Area:
    """The area of a tag: above, in or below its box, where it overlaps other tags least; within the photo."""
    width, height = size
    tops = [y for y in (box.y1 - height, box.y1, box.y2 - height, box.y2) if 0 <= y <= within[1] - height - 1]
    lefts = [max(0, min(x, within[0] - width - 1)) for x in (box.x1, box.x2 - width)]
    areas = [(x, y, x + width, y + height) for y in tops or [0] for x in lefts]
    return min(areas, key=lambda area: sum(_overlap(area, other) for other in taken))


def _overlap(a: Area, b: Area) -> float:
    """The common area of two rectangles, square pixels."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _ink_on(colour: Colour) -> Colour:
    """Black on light colours, white on dark ones."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else (255, 255, 255)


def _line_height(font: Font) -> float:
    return font.getbbox("Ag")[3]


def _shortened(text: str, font: Font, width: float) -> str:
    """A text cut to a width in pixels, without cutting the score at its end."""
    if font.getlength(text) <= width:
        return text
    name, _, score = text.rpartition(" ")
    while name and font.getlength(f"{name}… {score}") > width:
        name = name[:-1].rstrip()
    return f"{name}… {score}"


def _cut(text: str, font: Font, width: float) -> str:
    """The beginning of a text that fits a width in pixels."""
    while font.getlength(text) > width:
        text = text[:-1]
    return text


def _fitting(texts: list[str], font: Font, width: float) -> str:
    """Texts on one line, as many as fit whole."""
    lines = ("    ".join(texts[:kept]) for kept in range(len(texts), 0, -1))
    return next((line for line in lines if font.getlength(line) <= width), "")


def _aspect(path: Path) -> float:
    with Image.open(path) as picture:
        return picture.width / picture.height


def _rows(aspects: list[float]) -> list[list[float]]:
    """Splits pictures, given as width / height, into rows of similar length, together about square."""
    total = sum(aspects)
    rows = max(1, round(math.sqrt(total)))
    ends, reached = [], 0.0
    for aspect in aspects:
        ends.append(int((reached + aspect / 2) / total * rows))
        reached += aspect
    return [
        [aspect for _, aspect in row] for _, row in groupby(zip(ends, aspects, strict=True), itemgetter(0))
    ]
