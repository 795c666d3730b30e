"""What goes wrong when a file of a manifest is read, told as the file's."""

import contextlib
import gzip
import lzma
import zlib
from collections.abc import Iterator

import pyarrow as pa

from schemas.exceptions import ImageError, ManifestError, RaylabelError
from workers.printable import message_of
from workers.storage.encodings import EncodingError
from workers.storage.uris import clean_uri


@contextlib.contextmanager
def read_errors(uri: str, how: str = "") -> Iterator[None]:
    """Turns any error in a block that reads a file into a ManifestError that names the file.

    Args:
        uri: of the file, credentials included.
        how: what it is read as, such as " as Parquet".

    Raises:
        ManifestError: in place of any error that is not raylabel's own, and of an ImageError.
    """
    name = clean_uri(uri)
    try:
        yield
    except ImageError as error:
        raise ManifestError(f"cannot read {error.message}") from None
    except RaylabelError:
        raise
    except Exception as error:  # each store and each library raises its own
        damaged = "it is damaged, or its end is missing: " if _is_damage(error) else ""
        reason = message_of(error, uri, name) or type(error).__name__
        raise ManifestError(f"cannot read {name}{how}: {damaged}{reason}") from None


def _is_damage(error: Exception) -> bool:
    """Whether an error is of a file's content, rather than of its disk or the network."""
    if isinstance(error, EOFError | zlib.error | lzma.LZMAError | pa.ArrowException):
        return True
    # What libraries raise where they cannot decode; a disk's errors have numbers, a network's classes
    is_own = type(error) in (OSError, gzip.BadGzipFile, EncodingError)
    return is_own and getattr(error, "errno", None) is None
