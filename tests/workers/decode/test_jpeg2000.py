import struct

import pytest

from tests.workers.decode.checks import decoded, unsupported
from tests.workers.image_files import encode, picture
from workers.decode import jpeg2000

STYLE = b"\xff\x52"

PLAIN = encode(picture(), "JPEG2000")
BARE = PLAIN[PLAIN.index(b"\xff\x4f\xff\x51") :]
REFUSAL = "code blocks and packets; allowed: 500."


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def with_tiny_blocks(data: bytes) -> bytes:
    """The same with code blocks of 4 x 4 pixels."""
    at = data.index(STYLE)
    return data[: at + 10] + b"\0\0" + data[at + 12 :]


def with_segment(data: bytes, segment: bytes, before: bytes) -> bytes:
    """The same with a segment before the first of another marker, in a tile's header behind its start."""
    at = data.index(before)
    if before == b"\xff\x93":  # Psot, the length of the tile's part
        length = data.index(b"\xff\x90") + 6
        (old,) = struct.unpack_from(">I", data, length)
        data = data[:length] + struct.pack(">I", old + len(segment)) + data[length + 4 :]
    return data[:at] + segment + data[at:]


def test_many_code_blocks_are_refused_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoded(PLAIN).width == 83
    monkeypatch.setattr(jpeg2000, "MAX_BLOCKS", 500)
    assert decoded(PLAIN).width == 83
    tiny = bytearray(PLAIN)
    style = tiny.index(b"\xff\x52")
    tiny[style + 10 : style + 12] = b"\0\0"  # 4 x 4
    assert "code blocks and packets; allowed: 500." in unsupported(bytes(tiny))
    layers = bytearray(PLAIN)
    layers[style + 6 : style + 8] = b"\xff\xff"
    assert "code blocks and packets; allowed: 500." in unsupported(bytes(layers))


def tiny(marker: bytes, *, of: int | None = None) -> bytes:
    """A segment that sets code blocks of 4 x 4, for all components or for one."""
    head = b"\0\0\0\1\0" if of is None else bytes([of, 0])
    content = head + b"\5\0\0\0"
    return marker + struct.pack(">H", 2 + len(content)) + content


@pytest.mark.parametrize(
    "data",
    [
        box(b"free", BARE).join([PLAIN[:32], with_tiny_blocks(PLAIN[32:])]),
        with_segment(BARE, tiny(b"\xff\x53", of=0), b"\xff\x5c"),
        with_segment(BARE, tiny(STYLE), b"\xff\x93"),
        with_segment(BARE, tiny(b"\xff\x53", of=1), b"\xff\x93"),
        with_segment(with_tiny_blocks(BARE), b"\xff\x7f\0\x10", STYLE),
    ],
    ids=["a box before it", "a component", "a tile", "a tile's component", "behind an unknown marker"],
)
def test_what_the_decoder_reads_is_what_is_counted(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg2000, "MAX_BLOCKS", 500)
    assert decoded(PLAIN).width == decoded(BARE).width == 83
    assert REFUSAL in unsupported(data)


def test_what_the_decoder_does_not_read_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg2000, "MAX_BLOCKS", 500)
    assert decoded(PLAIN[:32] + box(b"free", with_tiny_blocks(BARE)) + PLAIN[32:]).width == 83
    assert decoded(PLAIN + with_tiny_blocks(BARE)).width == 83


def test_a_long_row_of_pixels_is_counted_by_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    row = with_tiny_blocks(encode(picture().resize((8_000, 1)), "JPEG2000"))
    monkeypatch.setattr(jpeg2000, "MAX_BLOCKS", 5_000)
    assert "code blocks and packets; allowed: 5,000." in unsupported(row)


def test_many_boxes_segments_or_styles_are_refused_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg2000, "MAX_SEGMENTS", 50)
    monkeypatch.setattr(jpeg2000, "MAX_STYLES", 2)
    assert decoded(PLAIN).width == decoded(BARE).width == 83
    boxes = PLAIN[:32] + box(b"free", b"") * 60 + PLAIN[32:]
    assert unsupported(boxes).startswith("This JPEG 2000 file has over 50 boxes; allowed: 50.")
    comments = with_segment(BARE, b"\xff\x64\0\4\0\1" * 60, STYLE)
    assert unsupported(comments).startswith("This JPEG 2000 file has over 50 header segments; allowed: 50.")
    styles = b"".join(tiny(b"\xff\x53", of=number)[:-3] + bytes([number, 0, 0]) for number in range(3))
    several = with_segment(BARE, styles, b"\xff\x5c")
    assert unsupported(several).startswith("This JPEG 2000 file has over 2 coding styles; allowed: 2.")
