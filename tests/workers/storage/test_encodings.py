import gzip
import io
import os
import zlib

import pyarrow as pa
import pytest

from workers.storage.encodings import EncodingError, decoded, encodings_of, reader

DATA = os.urandom(50_000) + bytes(50_000)
LIMIT = 2**20


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
def test_a_bomb_is_decoded_to_one_byte_more_than_is_wanted(encoding: str) -> None:
    bomb = encode(encoding, bytes(64 * 2**20))
    assert len(bomb) < 2**20
    assert decoded(bomb, [encoding.rsplit(maxsplit=1)[-1]], 1000) == bytes(1001)


def test_a_bomb_within_a_bomb_is_bounded_at_each_step() -> None:
    assert decoded(gzip.compress(gzip.compress(bytes(64 * 2**20))), ["gzip", "gzip"], 10**6) == bytes(
        10**6 + 1
    )
    with pytest.raises(EncodingError, match="4 encodings, one after another; allowed: 3"):
        decoded(b"", ["gzip"] * 4, LIMIT)


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
