"""When, where and by what a photo was taken, by its EXIF (Exif 3.0; CIPA DC-008-2023).

Of a damaged block as much counts as can be read: a fact is right, or it is None. No picture fails for it.
"""

import datetime
import re
import struct
import unicodedata
from typing import Any, NamedTuple

from schemas.images import Content
from workers.decode.orientation import Layout, first_directory, layout_of, places_of_entries, tiff_of

MAX_ENTRIES = 1024
"""Of a directory that are looked at; cameras write a hundred."""

MAX_TEXT = 256
"""Bytes of a text that may be a fact; names are shorter."""

FIRST_PHOTO = 1826
"""The year of it: what was taken earlier has the date of a clock that was never set."""

MOST_OFFSET = 14 * 60
"""Minutes of the farthest time zone."""

LEAST_ALTITUDE, MOST_ALTITUDE = -11_000.0, 100_000.0
"""Metres: the deepest sea, and the edge of space."""

_MAKE, _MODEL, _EXIF, _GPS = 0x010F, 0x0110, 0x8769, 0x8825
_LENS_MODEL = 0xA434
_ORIGINAL, _DIGITIZED = (0x9003, 0x9291, 0x9011), (0x9004, 0x9292, 0x9012)
"""Tags of a time, of its parts of a second, and of its offset from UTC."""

_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE, _DATUM = 1, 2, 3, 4, 5, 6, 18

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8, 13: 4, 129: 1}
"""Bytes of a value, by type; the last is text in UTF-8."""

_TIME = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")


class _Entry(NamedTuple):
    """A tag's type, number of values, and their bytes; fewer than it says where the block ends before."""

    kind: int
    values: int
    value: bytes


_Directory = dict[int, _Entry]


def exif_facts(exif: Content) -> dict[str, Any]:
    """What EXIF says of how a photo was taken.

    Args:
        exif: a TIFF, perhaps with "Exif" and two zero bytes before it; may be empty or damaged.

    Returns:
        The values of `schemas.tables.FACTS_OF["exif"]`, None for what is not there, or damaged or impossible:
            taken_at: DateTimeOriginal, else DateTimeDigitized, with its parts of a second; without a zone.
            taken_at_offset: minutes that its clock was ahead of UTC.
            latitude, longitude: degrees, WGS 84, north and east positive; both or none.
            altitude: metres above the sea.
            camera_make, camera_model, lens: text.
    """
    tiff = tiff_of(exif)
    layout = layout_of(tiff)
    if layout is None:
        return dict.fromkeys(_NAMES)
    try:
        main = _directory(tiff, layout, first_directory(tiff, layout))
    except struct.error:
        return dict.fromkeys(_NAMES)
    own, gps = (_below(tiff, layout, main.get(tag)) for tag in (_EXIF, _GPS))
    taken_at, offset = next(
        (found for tags in (_ORIGINAL, _DIGITIZED) if (found := _taken_at(own, tags))), (None, None)
    )
    latitude, longitude = _place(gps, layout)
    values = (
        *(taken_at, offset, latitude, longitude, _altitude(gps, layout)),
        *(_text(main.get(_MAKE)), _text(main.get(_MODEL)), _text(own.get(_LENS_MODEL))),
    )
    return dict(zip(_NAMES, values, strict=True))


_NAMES = (
    *("taken_at", "taken_at_offset", "latitude", "longitude", "altitude"),
    *("camera_make", "camera_model", "lens"),
)


def _directory(tiff: Content, layout: Layout, position: int) -> _Directory:
    """The entries of a directory, the first of each tag; raises struct.error where it lies behind the end."""
    entries: _Directory = {}
    for place in places_of_entries(tiff, layout, position, MAX_ENTRIES):
        tag, kind, values, inline = layout.read(layout.entry, tiff, place)
        length = _SIZES.get(kind, 0) * values
        if tag in entries or not length:
            continue
        value = inline[:length]
        if length > len(inline):
            (start,) = layout.read(layout.offset, inline, 0)
            value = tiff[start : start + min(length, MAX_TEXT + 1)]
        entries[tag] = _Entry(kind, values, value)
    return entries


def _below(tiff: Content, layout: Layout, entry: _Entry | None) -> _Directory:
    """The directory that an entry of another one leads to; empty where there is none."""
    if entry is None or entry.kind not in {4, 13} or entry.values != 1:
        return {}
    try:
        return _directory(tiff, layout, layout.read("I", entry.value, 0)[0])
    except struct.error:
        return {}


def _text(entry: _Entry | None) -> str | None:
    """A text without what fills it up: UTF-8, else Latin-1; None if it has control characters, or is long."""
    if entry is None or entry.kind not in {1, 2, 7, 129}:
        return None
    raw = entry.value.partition(b"\0")[0]
    if len(raw) > MAX_TEXT:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    text = text.strip()
    return text if text and not any(unicodedata.category(char)[0] == "C" for char in text) else None


def _taken_at(own: _Directory, tags: tuple[int, int, int]) -> tuple[datetime.datetime, int | None] | None:
    """A time and its offset in minutes; None if there is no time that can be."""
    time, parts, offset = (_text(own.get(tag)) or "" for tag in tags)
    match = _TIME.fullmatch(time)
    if not match or not time.isascii():
        return None
    micros = int(parts[:6].ljust(6, "0")) if parts.isascii() and parts.isdigit() else 0
    try:
        year, month, day, hour, minute, second = map(int, match.groups())
        taken_at = datetime.datetime(year, month, day, hour, minute, second, micros)
    except ValueError:
        return None
    return (taken_at, _offset(offset)) if taken_at.year >= FIRST_PHOTO else None


def _offset(text: str) -> int | None:
    if text in {"Z", "z"}:
        return 0
    match = _OFFSET.fullmatch(text)
    if not match or not text.isascii():
        return None
    hours, minutes = int(match[2]), int(match[3])
    total = 60 * hours + minutes
    if minutes > 59 or total > MOST_OFFSET:
        return None
    return -total if match[1] == "-" else total


def _rationals(entry: _Entry | None, layout: Layout) -> list[float] | None:
    """The values of a tag; None where one is none."""
    if entry is None or entry.kind not in {5, 10} or entry.values > 3 or len(entry.value) < 8 * entry.values:
        return None
    numbers: tuple[int, ...] = layout.read(
        f"{2 * entry.values}{'I' if entry.kind == 5 else 'i'}", entry.value, 0
    )
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    return None if any(below == 0 for _, below in pairs) else [above / below for above, below in pairs]


def _angle(values: list[float] | None, reference: str | None, letters: str, most: int) -> float | None:
    """Degrees of degrees, minutes and seconds; negative for the second letter."""
    reference = (reference or "").upper()[:1]
    if not values or any(value < 0 for value in values) or not reference or reference not in letters:
        return None
    if any(value > 60 for value in values[1:]):
        return None
    degrees = sum(value / part for value, part in zip(values, (1, 60, 3600), strict=False))
    if degrees > most:
        return None
    return -degrees if reference == letters[1] else degrees


def _place(gps: _Directory, layout: Layout) -> tuple[float | None, float | None]:
    """Latitude and longitude, both or none; none where they are of another datum than WGS 84."""
    datum = re.sub("[^A-Z0-9]", "", (_text(gps.get(_DATUM)) or "").upper())
    latitude = _angle(_rationals(gps.get(_LATITUDE), layout), _text(gps.get(_LATITUDE_REF)), "NS", 90)
    longitude = _angle(_rationals(gps.get(_LONGITUDE), layout), _text(gps.get(_LONGITUDE_REF)), "EW", 180)
    if latitude is None or longitude is None or (datum and not datum.startswith("WGS84")):
        return None, None
    return latitude, longitude


def _altitude(gps: _Directory, layout: Layout) -> float | None:
    values = _rationals(gps.get(_ALTITUDE), layout)
    if values is None or len(values) != 1:
        return None
    reference = gps.get(_ALTITUDE_REF)
    is_below = reference is not None and reference.value[:1] in {b"\1", b"\3", b"1"}
    metres: float = -abs(values[0]) if is_below else values[0]
    return metres if LEAST_ALTITUDE <= metres <= MOST_ALTITUDE else None
