"""Keys of a bucket, page by page: by obstore where its keys are sure to be right, otherwise by s3fs.

obstore removes slashes at the beginning and end of a key (a folder's own key ends in one), refuses keys
with empty segments, and does not request URL encoding, though XML cannot hold control characters. So a page
with an empty object or a damaged key is requested again through s3fs. So is a page that failed: s3fs
retries, and its exceptions say what is wrong.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from queue import Full, Queue
from typing import Any, NamedTuple, TypeVar

from obstore.exceptions import BaseError

from workers.storage.s3 import bucket_and_key, pages

PAGE = 1000
"""Keys in a response: the most that S3 returns."""

AT_ONCE, AHEAD = 16, 8
"""Folders listed in parallel, and pages of each that may wait until the folders before it are done."""

TIMEOUT_S = 30
"""Seconds for a page by obstore; after that it is requested through s3fs."""

T = TypeVar("T")

_DAMAGED = "\ufffd"
"""What servers write in place of a character that XML cannot hold."""


class Key(NamedTuple):
    """An object, or a folder's own key, which ends in a slash.

    Attributes:
        key: the key.
        size: bytes of the object.
        etag: in quotation marks, as S3 returns it; "" if there is none.
    """

    key: str
    size: int
    etag: str


class _UnclearError(Exception):
    """The keys of a page may differ from what obstore returned."""


def keys_below(fs: Any, bucket: str, prefix: str) -> Iterator[Key]:
    """All keys that begin with a prefix, nearly in the server's order; rarely, a key comes twice.

    If the prefix has folders, and one response holds them all, several are listed in parallel.

    Args:
        fs: the s3fs that reaches the bucket.
        bucket: its name.
        prefix: a folder with its slash, or "" for the whole bucket.

    Raises:
        OSError: as s3fs raises it, such as FileNotFoundError if there is no such bucket.
    """
    response = next(_responses(fs, bucket, prefix, Delimiter="/"))
    folders = [entry["Prefix"] for entry in response.get("CommonPrefixes", ())]
    if response.get("IsTruncated"):
        yield from chain.from_iterable(_pages_below(fs, bucket, prefix))
        return
    yield from _keys_of(response)
    if len(folders) == 1:
        yield from keys_below(fs, bucket, folders[0])
    else:
        yield from chain.from_iterable(
            ahead([partial(_pages_below, fs, bucket, folder) for folder in folders])
        )


def ahead(sources: Sequence[Callable[[], Iterable[T]]]) -> Iterator[T]:
    """The items of some sources, one source after the other.

    `AT_ONCE` of them are read in parallel by threads, each up to `AHEAD` items ahead.
    """
    ended = threading.Event()
    queues: list[Queue[T | _End]] = [Queue(AHEAD) for _ in sources]

    def put(into: "Queue[T | _End]", item: T | _End) -> None:
        # With a timeout, since a full queue is never emptied once the consumer has stopped
        while not ended.is_set():
            with contextlib.suppress(Full):
                into.put(item, timeout=1)
                return

    def read(source: Callable[[], Iterable[T]], into: "Queue[T | _End]") -> None:
        try:
            for item in source():
                put(into, item)
                if ended.is_set():
                    return
            put(into, _End(None))
        except Exception as error:
            put(into, _End(error))

    with ThreadPoolExecutor(AT_ONCE, "list") as pool:
        for source, queue in zip(sources, queues, strict=True):
            pool.submit(read, source, queue)
        try:
            for queue in queues:
                while not isinstance(item := queue.get(), _End):
                    yield item
                if item.error:
                    raise item.error
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _End:
    """Marks the end of a source in its queue, with the error that ended it, if any."""

    error: Exception | None


def _pages_below(fs: Any, bucket: str, prefix: str) -> Iterator[list[Key]]:
    """All keys that begin with a prefix, page by page."""
    last, exact_pages = "", 1
    usable = _is_unchanged(bucket, f"{prefix}key") and not (prefix == "" and _has_leading_slash(fs, bucket))
    # Each turn reads as far as obstore can, then some pages through s3fs to get past the unclear one. Each
    # page starts after the last key of the one before, so the two listings join without gaps
    while usable:
        try:
            for page in _plain_pages(bucket, prefix, last):
                yield page
                last = page[-1].key
            return
        except (BaseError, OSError, ValueError, _UnclearError):
            pass  # s3fs reads the page, or raises what is wrong
        for number, page in enumerate(_exact_pages(fs, bucket, prefix, last), 1):
            yield page
            last = page[-1].key if page else last
            if number >= exact_pages and _is_unchanged(bucket, last):
                break
        else:
            return
        exact_pages *= 2  # the more pages obstore fails on, the less often it is tried
    yield from _exact_pages(fs, bucket, prefix)


def keys_in(fs: Any, bucket: str, prefix: str) -> Iterator[Key]:
    """The keys directly in a folder, with no further slash after the prefix; see `keys_below`."""
    for page in _exact_pages(fs, bucket, prefix, Delimiter="/"):
        yield from page


def _plain_pages(bucket: str, prefix: str, after: str) -> Iterator[list[Key]]:
    """Pages through obstore; raises if one may be wrong. An empty object may be a folder's own key."""
    for page in pages(bucket, prefix, after, PAGE, TIMEOUT_S):
        if not all(entry["size"] and _DAMAGED not in entry["path"] for entry in page):
            raise _UnclearError
        yield [Key(entry["path"], entry["size"], entry["e_tag"] or "") for entry in page]


def _exact_pages(fs: Any, bucket: str, prefix: str, after: str = "", **arguments: str) -> Iterator[list[Key]]:
    """Pages through s3fs; they may be empty."""
    return map(_keys_of, _responses(fs, bucket, prefix, after, **arguments))


def _responses(
    fs: Any, bucket: str, prefix: str, after: str = "", **arguments: str
) -> Iterator[dict[str, Any]]:
    """The responses to ListObjectsV2, page after page, starting after a key."""
    position = {"StartAfter": after} if after else {}
    while True:
        response = fs.call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **position, **arguments
        )
        yield response
        if not response.get("IsTruncated"):
            return
        position = {"ContinuationToken": response["NextContinuationToken"]}


def _keys_of(response: dict[str, Any]) -> list[Key]:
    entries = response.get("Contents", ())
    return [Key(entry["Key"], entry["Size"], entry.get("ETag", "")) for entry in entries]


def _is_unchanged(bucket: str, key: str) -> bool:
    """Whether obstore takes a key without changing it."""
    return bucket_and_key(f"s3://{bucket}/{key}") == (bucket, key) and not key.startswith("/")


def _has_leading_slash(fs: Any, bucket: str) -> bool:
    """Whether any key of a bucket begins with a slash."""
    response = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix="/", MaxKeys=1)
    return any(entry["Key"].startswith("/") for entry in response.get("Contents", ()))
