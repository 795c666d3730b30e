"""Text files as they come: compressed or not, in UTF-8 or another Unicode, told by what they begin with.

A name says little: the server of a web address may have undone the compression, or the name is in the query.
"""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import pyarrow as pa

from schemas.exceptions import ManifestError
from workers.manifest.read_errors import read_errors
from workers.storage.filesystem import open_file
from workers.storage.uris import clean_uri

HEAD_BYTES = 4096
"""Bytes at the beginning of a file that tell what it is."""

INPUT_BYTES = 2**16
"""Bytes of a compressed file that are read at once."""


class _Streams(io.RawIOBase):
    """The content of compressed streams, one behind the other.

    What follows a stream is the next one, or damage. BZ2File and LZMAFile take it for no part of the file: of
    one with a damaged stream they give those before it, and no error.

    Args:
        file: the streams.
        new_stream: makes what undoes the compression of one.
        padding: what may stand behind a stream and means nothing.
    """

    def __init__(self, file: Any, new_stream: Callable[[], Any], padding: bytes = b"") -> None:
        self._file, self._new_stream, self._padding = file, new_stream, padding
        self._stream = new_stream()
        self._begin = b""

    def readable(self) -> bool:
        """It is all that can be done."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads some bytes; 0 at the end.

        Raises:
            EOFError: a stream has no end.
            OSError, lzma.LZMAError: a stream is damaged, or what follows it is none.
        """
        data = b""
        while not data and (not self._stream.eof or self._has_next()):
            data = self._stream.decompress(self._input(), len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _has_next(self) -> bool:
        """Goes on to the next stream, if there is one."""
        rest = self._stream.unused_data.lstrip(self._padding)
        while not rest and (read := self._file.read(INPUT_BYTES)):
            rest = read.lstrip(self._padding)
        if rest:
            self._stream, self._begin = self._new_stream(), rest
        return bool(rest)

    def _input(self) -> bytes:
        if not self._stream.needs_input:
            return b""
        begin, self._begin = self._begin, b""
        if data := begin or self._file.read(INPUT_BYTES):
            return bytes(data)
        raise EOFError("a compressed stream has no end")


_COMPRESSIONS: dict[re.Pattern[bytes], Callable[[Any], Any]] = {
    re.compile(rb"\x1f\x8b"): lambda file: gzip.GzipFile(fileobj=file),
    re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"): lambda file: _Streams(file, bz2.BZ2Decompressor),
    re.compile(rb"\xfd7zXZ\0"): lambda file: _Streams(file, lzma.LZMADecompressor, padding=b"\0"),
    # frame by frame, like the others: a file may have several, of which some are to be skipped
    re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL): lambda file: (
        pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    ),
}
"""How the data of a compression begins (gzip, bzip2, xz, zstd), and what undoes it."""

_NO_TEXT = {
    b"PK\x03\x04": "a ZIP file (an Excel workbook is one). Unpack it, or save the table as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook. Save the table as CSV",
    b"PAR1": "Parquet. Let its name end in .parquet, or set manifest.format: parquet",
    b"ORC": "ORC. Convert it to Parquet",
    b"Obj\x01": "Avro. Convert it to Parquet",
    b"SQLite format 3\0": "an SQLite database. Export the table as CSV",
    b"\x04\x22\x4d\x18": "lz4 data. Compress it with gzip, bzip2, xz or zstd instead",
    b"7z\xbc\xaf\x27\x1c": "a 7z file. Unpack it",
}
"""How files begin that are taken for manifests, and what they are."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, and the encodings that they tell."""


@contextlib.contextmanager
def open_text(url: str) -> Iterator[TextIO]:
    """Opens a text file, with its line breaks as they are; an error within the block is told as the file's.

    Args:
        url: a path or any fsspec URL.

    Raises:
        ManifestError: it cannot be read, is no text, or ends too early.
    """
    name = clean_uri(url)
    with read_errors(url):
        try:
            with _opened(url) as file:
                yield io.TextIOWrapper(file, encoding=_encoding(file.peek(HEAD_BYTES), name), newline="")
        except UnicodeError as error:
            raise ManifestError(f"{name} is not {_wrong_text(url, error)}. Save it as UTF-8") from None


@contextlib.contextmanager
def _opened(url: str) -> Iterator[io.BufferedReader]:
    """A file's bytes, without compression."""
    with open_file(url) as stored:
        file = io.BufferedReader(stored)
        head = file.peek(HEAD_BYTES)
        unpacker = next((unpacked for begins, unpacked in _COMPRESSIONS.items() if begins.match(head)), None)
        yield io.BufferedReader(unpacker(file)) if unpacker else file


def _encoding(head: bytes, name: str) -> str:
    """The encoding of a text that begins with some bytes.

    Raises:
        ManifestError: it is no text.
    """
    for begins, what in _NO_TEXT.items():
        if head.startswith(begins):
            raise ManifestError(f"{name} is {what}")
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if head.count(0) > len(head) // 4:
        raise ManifestError(
            f"{name} is not UTF-8 text: it has zero bytes, as UTF-16 without its mark has. Save it as UTF-8"
        )
    return "utf-8"


def _wrong_text(url: str, error: UnicodeError) -> str:
    """What a file's text is not, with the line and the byte where they can be found."""
    encoding = getattr(error, "encoding", "utf-8")
    if encoding != "utf-8":
        return f"{encoding.upper()} text, as its first bytes say it is: {error}"
    with _opened(url) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as wrong:
                return f"UTF-8 text: line {number} has the byte 0x{line[wrong.start]:02X}"
    return f"UTF-8 text: {error}"
