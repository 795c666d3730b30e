import gzip
import io
import os
import zlib

import pyarrow as pa
import pytest

from workers.storage.answers import TooManyBytesError
from workers.storage.encodings import STEP, EncodingError, Readable, encodings_of, reader
from workers.storage.encodings import decoded as decoded_from

DATA = os.urandom(50_000) + bytes(50_000)
LIMIT = 2**20


def decoded(data: bytes, encodings: list[str], most: int) -> bytes:
    return decoded_from(io.BytesIO(data), encodings, most)


def encode(encoding: str, data: bytes) -> bytes:
    """The data in an encoding; of gzip and zstd in two members."""
    match encoding:
        case "gzip":
            return gzip.compress(data[:1000]) + gzip.compress(data[1000:])
        case "zstd":
            return b"".join(pa.compress(half, "zstd", asbytes=True) for half in (data[:1000], data[1000:]))
        case "deflate":
            return zlib.compress(data)
        case "raw deflate":
            encoder = zlib.compressobj(wbits=-15)
            return encoder.compress(data) + encoder.flush()
    encoded: bytes = pa.compress(data, encoding, asbytes=True)
    return encoded


ENCODINGS = ["gzip", "zstd", "brotli", "deflate", "raw deflate"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_encoded_is_decoded_to_its_end(encoding: str) -> None:
    assert decoded(encode(encoding, DATA), [encoding.rsplit(maxsplit=1)[-1]], LIMIT) == DATA


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_refused_once_it_is_too_large(encoding: str) -> None:
    bomb = encode(encoding, bytes(64 * 2**20))
    assert len(bomb) < 2**20
    with pytest.raises(TooManyBytesError, match="more than 1,000,000 bytes when it is decompressed"):
        decoded(bomb, [encoding.rsplit(maxsplit=1)[-1]], 10**6)


def test_a_bomb_within_a_bomb_is_bounded_at_each_step() -> None:
    within = gzip.compress(gzip.compress(bytes(10)) + gzip.compress(b"") * 200_000)
    with pytest.raises(TooManyBytesError, match="more than 1,000,000 bytes when"):
        decoded(within, ["gzip", "gzip"], 10**6)
    with pytest.raises(EncodingError, match="4 encodings, one after another; allowed: 3"):
        decoded(b"", ["gzip"] * 4, LIMIT)


class Endless:
    """Encoded bytes without an end; holds how many were taken."""

    def __init__(self, piece: bytes) -> None:
        self.piece, self.taken = piece, 0

    def read(self, size: int = -1, /) -> bytes:
        start = self.taken % len(self.piece)
        data = self.piece[start : start + size]
        self.taken += len(data)
        return data


def test_no_more_encoded_bytes_are_taken_than_are_wanted_even_where_they_hold_nothing() -> None:
    file = Endless(gzip.compress(b"", mtime=0))
    with pytest.raises(TooManyBytesError, match=r"more than 100,000 bytes$"):
        decoded_from(file, ["gzip"], 100_000)
    assert file.taken <= 100_001


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_bytes_are_decoded_as_they_come(encoding: str) -> None:
    data = os.urandom(8 * STEP)
    file = io.BytesIO(encode(encoding, data))
    source: Readable = reader(file, encoding.rsplit(maxsplit=1)[-1])
    assert source.read(1000) == data[:1000]
    assert file.tell() <= 2 * STEP


@pytest.mark.parametrize("error", [TimeoutError("late"), ConnectionResetError("gone")])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_connection_that_fails_is_not_taken_for_damage(encoding: str, error: Exception) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if data := super().read(size):
                return data
            raise error

    with pytest.raises(type(error), match=str(error)):
        decoded_from(Failing(encode(encoding, DATA)[:-9]), [encoding.rsplit(maxsplit=1)[-1]], LIMIT)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_cut_or_damaged_is_told_apart(encoding: str) -> None:
    data = encode(encoding, DATA)
    with pytest.raises(EncodingError) as cut:
        decoded(data[: len(data) // 2], [encoding.rsplit(maxsplit=1)[-1]], LIMIT)
    assert cut.value.cut


def test_what_is_not_encoded_as_its_server_says_is_taken_as_it_is() -> None:
    for encoding in ("gzip", "zstd"):
        assert decoded(b"\xff\xd8\xff\xe0 a JPEG", [encoding], LIMIT) == b"\xff\xd8\xff\xe0 a JPEG"
    assert decoded(b"", ["gzip"], LIMIT) == decoded(b"", ["deflate"], LIMIT) == b""


@pytest.mark.parametrize(
    ("header", "name", "encodings"),
    [
        ("", "a.jpg", []),
        ("gzip", "a.jpg", ["gzip"]),
        ("GZIP", "a.jpg", ["gzip"]),
        ("x-gzip", "a.jpg", ["gzip"]),
        ("br", "a.jpg", ["brotli"]),
        ("zstd, gzip", "a.jpg", ["gzip", "zstd"]),
        ("identity", "a.jpg", []),
        ("aws-chunked", "a.jpg", []),  # S3 keeps what SDKs sent
        ("aws-chunked,gzip", "a.jpg", ["gzip"]),
        ("utf-8", "a.csv", []),
        ("gzip", "list.csv.GZ", []),  # the file's own, which its reader undoes
        ("br", "list.csv.gz", ["brotli"]),
    ],
)
def test_encodings_are_known_by_header_and_name(header: str, name: str, encodings: list[str]) -> None:
    assert encodings_of(header, name) == encodings


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_is_decoded_as_it_is_read(encoding: str) -> None:
    file = reader(io.BytesIO(encode(encoding, DATA)), encoding.rsplit(maxsplit=1)[-1])
    pieces = iter(lambda: file.read(777), b"")
    assert b"".join(pieces) == DATA
