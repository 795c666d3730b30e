import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.decode.orientation import orientation_of

XMP = b'<x:xmpmeta tiff:Orientation="8">'


def block(kind: int, count: int, value: bytes, order: str = "<") -> bytes:
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    entry = struct.pack(order + "HHI", 0x0112, kind, count) + value.ljust(4, b"\0")
    other = struct.pack(order + "HHI4s", 0x010F, 2, 900, b"\xff\xff\xff\xff")
    return b"Exif\0\0" + head + struct.pack(order + "H", 2) + other + entry + bytes(4)


@pytest.mark.parametrize(
    ("exif", "orientation"),
    [
        (block(3, 1, b"\6\0"), 6),
        (block(3, 1, b"\0\6", ">"), 6),
        (block(4, 1, b"\3\0\0\0"), 3),
        (block(3, 2, b"\6\0\1\0"), 6),
        (block(3, 1, b"\x09\0"), 1),
        (block(2, 2, b"6\0"), 1),
        (block(3, 9, b"\6\0"), 1),
        (b"", 8),
        (b"Exif\0\0", 8),
        (b"Exif\0\0II*\0\xff\xff\xff\xff", 8),
        (block(3, 1, b"\6\0")[:30], 8),
    ],
)
def test_exif_comes_before_xmp(exif: bytes, orientation: int) -> None:
    assert orientation_of(exif, XMP) == orientation


@given(
    st.binary(max_size=60),
    st.binary(max_size=60),
    st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0+\0\x08\0\0"]),
)
def test_whatever_is_there_an_orientation_comes_out(exif: bytes, xmp: bytes, head: bytes) -> None:
    assert 1 <= orientation_of(head + exif, xmp) <= 8
