import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.exceptions import ManifestError
from tests.image_server import serving
from workers.manifest.formats.text_files import open_text


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


COMPRESSIONS = [gzip.compress, bz2.compress, lzma.compress, zstd]
compressions = pytest.mark.parametrize("compress", COMPRESSIONS, ids=["gz", "bz2", "xz", "zst"])

LINES = "".join(f"{n},{zlib.crc32(str(n).encode())}\n" for n in range(20_000))


def text_of(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with open_text(str(path)) as file:
        return file.read()


@compressions
def test_all_frames_of_a_compressed_file_are_read_whatever_its_name(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    pieces = [LINES[start : start + 50_000].encode() for start in range(0, len(LINES), 50_000)]
    frames = b"".join(map(compress, [*pieces, b""]))
    for name in ("m.csv", "m.csv.gz", "m.zst"):
        assert text_of(tmp_path / name, frames) == LINES
    assert text_of(tmp_path / "m.csv.gz", LINES.encode()) == LINES
    assert text_of(tmp_path / "m.csv.gz", compress(b"")) == text_of(tmp_path / "m", b"") == ""


def test_frames_of_zstd_that_are_to_be_skipped_are(tmp_path: Path) -> None:
    skipped = b"\x5a\x2a\x4d\x18\x04\0\0\0abcd"
    assert text_of(tmp_path / "m", skipped + zstd(b"a\n") + skipped + zstd(b"b\n")) == "a\nb\n"


@compressions
def test_a_file_that_is_cut_or_damaged_is_refused_by_its_name(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    whole = compress(LINES.encode())
    cut = [whole[:-1], whole[:-5000], whole + whole[:100]]
    damaged = whole[: len(whole) // 2] + bytes(200) + whole[len(whole) // 2 + 200 :]
    for data in cut if compress is zstd else [*cut, damaged]:  # that of pyarrow has no checksum
        with pytest.raises(ManifestError, match=r"^cannot read .*/m\.csv: it is damaged, or its end is miss"):
            text_of(tmp_path / "m.csv", data)


@compressions
def test_no_stream_of_a_file_is_lost_in_silence(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    first, second = compress(b"a\n" * 100), compress(LINES.encode())
    for position in (0, 3, 12):  # where a stream begins, in what says that it is one, and behind that
        damaged = bytearray(second)
        damaged[position] ^= 0x10
        for behind in (bytes(damaged), b"\1" * 7, bytes(damaged[:20])):
            if compress is zstd and position == 12 and behind == bytes(damaged):
                continue  # its frames have no checksum here
            with pytest.raises(ManifestError, match=r"/m\.csv: it is damaged, or its end is missing"):
                text_of(tmp_path / "m.csv", first + behind)


def test_what_pads_the_streams_of_xz_is_no_stream(tmp_path: Path) -> None:
    padded = b"".join(lzma.compress(text) + bytes(100_000) for text in (b"a\n", b"b\n"))
    assert text_of(tmp_path / "m", padded) == "a\nb\n"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A web server's address of files in the folder, under names with a query."""
    with serving(tmp_path) as server:
        yield server.url("")


@compressions
def test_a_signed_address_of_a_compressed_file_is_read_and_its_signature_not_told(
    tmp_path: Path, served: str, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "m.csv.gz").write_bytes(compress(LINES.encode()))
    with open_text(f"{served}m.csv.gz?X-Amz-Signature=secret") as file:
        assert file.read() == LINES
    (tmp_path / "m.csv.gz").write_bytes(compress(LINES.encode())[:-100])
    with (
        pytest.raises(ManifestError) as refused,
        open_text(f"{served}m.csv.gz?X-Amz-Signature=secret") as file,
    ):
        file.read()
    assert f"cannot read {served}m.csv.gz: it is damaged" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    assert text_of(tmp_path / "m", "é,猫😀\r\n".encode(encoding)) == "é,猫😀\r\n"
    assert text_of(tmp_path / "m", gzip.compress("é,猫😀".encode(encoding))) == "é,猫😀"
    assert text_of(tmp_path / "m", b"\xfe\xff" + "é猫".encode("utf-16-be")) == "é猫"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"uri\na\ncaf\xe9\n", r"/m is not UTF-8 text: line 3 has the byte 0xE9\. Save it as UTF-8"),
        (gzip.compress(b"uri\ncaf\xe9\n", mtime=0), "/m is not UTF-8 text: line 2 has the byte 0xE9"),
        ("uri\na.jpg\n".encode("utf-16-le"), "/m is not UTF-8 text: it has zero bytes, as UTF-16 without"),
        ("uri\né".encode("utf-16")[:-1], "/m is not UTF-16-LE text, as its first bytes say it is: "),
        (b"PK\x03\x04 and more", r"/m is a ZIP file \(an Excel workbook is one\)\. Unpack it, or save"),
        (b"PAR1 and more", "/m is Parquet. Let its name end in .parquet"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "/m is not UTF-8 text: line 1 has the byte 0xFF"),
    ],
)
def test_what_is_no_text_is_refused_with_what_it_is(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        text_of(tmp_path / "m", data)


def test_a_file_that_is_gone_or_may_not_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.csv", tmp_path):
        with pytest.raises(ManifestError, match=f"^cannot read {path}: "), open_text(str(path)) as file:
            file.read()
