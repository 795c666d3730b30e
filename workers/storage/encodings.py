"""Bytes as a server or a store encoded them (Content-Encoding), decoded within bounds."""

import io
import zlib
from typing import Protocol

import pyarrow as pa

from workers.printable import message_of
from workers.storage.answers import TooManyBytesError

GZIP, BROTLI, ZSTD, DEFLATE = "gzip", "brotli", "zstd", "deflate"

_NAMES = {"gzip": GZIP, "x-gzip": GZIP, "br": BROTLI, "zstd": ZSTD, "deflate": DEFLATE}
_MAGIC = {GZIP: b"\x1f\x8b", ZSTD: b"\x28\xb5\x2f\xfd"}
_SUFFIXES = {GZIP: (".gz", ".gzip", ".tgz"), BROTLI: (".br",), ZSTD: (".zst", ".zstd"), DEFLATE: ()}

MAX_ENCODINGS = 3
"""Encodings of one body that are decoded, one after another; more are an attack."""

STEP = 2**20
"""Bytes that are decoded at once."""


class EncodingError(OSError):
    """Bytes are not what their encoding says: damaged, or cut.

    Attributes:
        cut: whether they end too early.
    """

    def __init__(self, message: str, *, cut: bool = False) -> None:
        super().__init__(message)
        self.cut = cut


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to `size` bytes; none at the end."""


def encodings_of(header: str, name: str) -> list[str]:
    """The encodings to undo, in this order, by a Content-Encoding.

    Left out are what is no encoding of bytes ("identity", S3's "aws-chunked", "utf-8"), and one that the
    file's own name announces: `list.csv.gz` is read as gzip data by whoever reads it.

    Args:
        header: names separated by commas, in the order in which they were applied.
        name: of the file.
    """
    names = [_NAMES.get(part.strip().lower()) for part in header.split(",")]
    known = [encoding for encoding in reversed(names) if encoding]
    if known and name.lower().endswith(_SUFFIXES[known[-1]]):
        known.pop()
    return known


def decoded(file: Readable, encodings: list[str], most: int) -> bytes:
    """Undoes encodings while the bytes come: only what is decoded is in memory, and a step of the rest.

    Args:
        file: the encoded bytes, at their beginning.
        encodings: to undo, in this order; see `encodings_of`.
        most: the most bytes that are wanted, and read.

    Raises:
        EncodingError: the bytes are damaged or cut, or there are too many encodings.
        TooManyBytesError: there are more, as they come or once an encoding is undone.
    """
    source, whole = undone(Bounded(file, most), encodings, most), io.BytesIO()
    while piece := source.read(STEP):
        whole.write(piece)
    return whole.getvalue()


def undone(file: Readable, encodings: list[str], most: int | None = None) -> Readable:
    """A reader of what an encoded file holds.

    Args:
        file: at its beginning.
        encodings: to undo, in this order; see `encodings_of`.
        most: the most bytes that each encoding may hold; None: any number.

    Raises:
        EncodingError: there are too many encodings; from reading: see `reader`.
        TooManyBytesError: from reading.
    """
    if len(encodings) > MAX_ENCODINGS:
        raise EncodingError(f"{len(encodings)} encodings, one after another; allowed: {MAX_ENCODINGS}")
    for encoding in encodings:
        file = reader(file, encoding)
        file = file if most is None else Bounded(file, most, " when it is decompressed")
    return file


class Bounded:
    """A file of which no more than so many bytes are read.

    Args:
        file: at its beginning.
        most: bytes.
        when: further words for the message.
    """

    def __init__(self, file: Readable, most: int, when: str = "") -> None:
        self._file = file
        self._most = self._left = most
        self._when = when

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to `size` bytes.

        Raises:
            TooManyBytesError: they are more than there may be.
        """
        data = self._file.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise TooManyBytesError(f"more than {self._most:,} bytes{self._when}")
        return data


def reader(file: Readable, encoding: str) -> Readable:
    """A reader of what an encoded file holds; of the file itself if it is not encoded so after all.

    Servers name encodings that they did not apply, for files that are as they were.

    Args:
        file: at its beginning.
        encoding: as `encodings_of` names it.

    Raises:
        EncodingError: from reading: the bytes are damaged or cut.
    """
    start = _Rejoined(file)
    if not start.head.startswith(_MAGIC.get(encoding, b"")) or not start.head:
        return start
    if encoding == DEFLATE:
        return _Inflated(start)
    return _Decompressed(start, encoding)


class _Rejoined(io.RawIOBase):
    """A file whose first bytes were looked at."""

    def __init__(self, file: Readable) -> None:
        super().__init__()
        self.head = self._rest = file.read(4)
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        """Reads up to `size` bytes, the first ones first."""
        if not self._rest:
            return self._file.read(-1 if size is None else size)
        if size is None or size < 0:
            head, self._rest = self._rest, b""
            return head + self._file.read()
        head, self._rest = self._rest[:size], self._rest[size:]
        return head

    def readable(self) -> bool:
        """True."""
        return True


class _Decompressed:
    """Gzip, zstd and brotli data of one or several members, decoded as it is read."""

    def __init__(self, file: _Rejoined, encoding: str) -> None:
        self._encoding = encoding
        self._stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), encoding)

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to `size` bytes of what was encoded."""
        try:
            return bytes(self._stream.read(None if size < 0 else size))
        except (ConnectionError, TimeoutError, TooManyBytesError):  # of the file that is read
            raise
        except (pa.ArrowException, OSError) as error:
            why = message_of(error)
            raise EncodingError(f"no {self._encoding} data: {why}", cut="Truncated" in why) from None


class _Inflated:
    """Deflate data, with the header of zlib that the standard wants, or without as some servers send it."""

    def __init__(self, file: _Rejoined) -> None:
        self._file = file
        head = file.head
        has_header = len(head) > 1 and head[0] & 15 == 8 and int.from_bytes(head[:2], "big") % 31 == 0
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)

    def read(self, size: int = -1, /) -> bytes:
        """Reads up to `size` bytes of what was encoded."""
        while not self._decoder.eof:
            data = self._decoder.unconsumed_tail or self._file.read(STEP)
            try:
                piece = self._decoder.decompress(data, max(size, 0))
            except zlib.error as error:
                raise EncodingError(f"no deflate data: {error}") from None
            if piece:
                return piece
            if not data:
                raise EncodingError("the deflate data ends too early", cut=True)
        return b""
