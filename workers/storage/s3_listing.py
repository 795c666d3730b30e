"""Keys of a bucket, page by page: by obstore where what it says is sure to be the key, otherwise by s3fs.

obstore takes a slash off the beginning of a key and off its end, where a folder's own has one, refuses keys
with empty segments, and does not have keys encoded, though XML cannot hold control characters. So a page with
something empty or damaged is asked for again through s3fs. So is one that did not come: s3fs repeats its
requests, and its exceptions say what is wrong.
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
"""Keys in an answer: the most that S3 gives."""

AT_ONCE, AHEAD = 16, 8
"""Folders that are listed at once, and pages of each that may wait for those before it."""

TIMEOUT_S = 30
"""Seconds for a page by obstore, which is then asked for through s3fs."""

T = TypeVar("T")

_DAMAGED = "\ufffd"
"""What servers put into XML in the place of a character that it cannot hold."""


class Key(NamedTuple):
    """An object, or a folder's own key, which ends in a slash.

    Attributes:
        key: the key.
        size: its bytes.
        etag: in quotation marks, as S3 has it; "" where there is none.
    """

    key: str
    size: int
    etag: str


class _UnclearError(Exception):
    """A page may have other keys than obstore says."""


def keys_below(fs: Any, bucket: str, prefix: str) -> Iterator[Key]:
    """All keys that begin with a prefix, about in the server's order; hardly ever one of them twice.

    Where there are folders, and no more than an answer holds, several are listed at once.

    Args:
        fs: the s3fs that reaches the bucket.
        bucket: its name.
        prefix: a folder with its slash, or "" for the whole bucket.

    Raises:
        OSError: as s3fs has it, such as FileNotFoundError where there is no such bucket.
    """
    answer = next(_answers(fs, bucket, prefix, Delimiter="/"))
    folders = [each["Prefix"] for each in answer.get("CommonPrefixes", ())]
    if answer.get("IsTruncated"):
        yield from chain.from_iterable(_pages_below(fs, bucket, prefix))
        return
    yield from _keys_of(answer)
    if len(folders) == 1:
        yield from keys_below(fs, bucket, folders[0])
    else:
        yield from chain.from_iterable(ahead([partial(_pages_below, fs, bucket, each) for each in folders]))


def ahead(sources: Sequence[Callable[[], Iterable[T]]]) -> Iterator[T]:
    """What some sources give, one after the other, while `AT_ONCE` are read, each `AHEAD` items ahead."""
    ended = threading.Event()
    queues: list[Queue[T | _End]] = [Queue(AHEAD) for _ in sources]

    def put(into: "Queue[T | _End]", item: T | _End) -> None:
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
    """The end of a source, and what ended it before its time."""

    error: Exception | None


def _pages_below(fs: Any, bucket: str, prefix: str) -> Iterator[list[Key]]:
    """All keys that begin with a prefix, page by page."""
    last, exact = "", 1
    fast = _is_kept(bucket, f"{prefix}key") and not (prefix == "" and _begin_with_slash(fs, bucket))
    while fast:
        try:
            for page in _plain_pages(bucket, prefix, last):
                yield page
                last = page[-1].key
            return
        except (BaseError, OSError, ValueError, _UnclearError):
            pass  # s3fs finds out what it is
        for number, page in enumerate(_exact_pages(fs, bucket, prefix, last), 1):
            yield page
            last = page[-1].key if page else last
            if number >= exact and _is_kept(bucket, last):
                break
        else:
            return
        exact *= 2  # where there is much of what obstore does not say it is seldom tried
    yield from _exact_pages(fs, bucket, prefix)


def keys_in(fs: Any, bucket: str, prefix: str) -> Iterator[Key]:
    """The keys that begin with a prefix and have no slash after it; see `keys_below`."""
    for page in _exact_pages(fs, bucket, prefix, Delimiter="/"):
        yield from page


def _plain_pages(bucket: str, prefix: str, after: str) -> Iterator[list[Key]]:
    for page in pages(bucket, prefix, after, PAGE, TIMEOUT_S):
        if not all(found["size"] and _DAMAGED not in found["path"] for found in page):
            raise _UnclearError
        yield [Key(found["path"], found["size"], found["e_tag"] or "") for found in page]


def _exact_pages(fs: Any, bucket: str, prefix: str, after: str = "", **asked: str) -> Iterator[list[Key]]:
    """Pages through s3fs, which may be empty."""
    return map(_keys_of, _answers(fs, bucket, prefix, after, **asked))


def _answers(fs: Any, bucket: str, prefix: str, after: str = "", **asked: str) -> Iterator[dict[str, Any]]:
    at = {"StartAfter": after} if after else {}
    while True:
        answer = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **at, **asked)
        yield answer
        if not answer.get("IsTruncated"):
            return
        at = {"ContinuationToken": answer["NextContinuationToken"]}


def _keys_of(answer: dict[str, Any]) -> list[Key]:
    return [Key(each["Key"], each["Size"], each.get("ETag", "")) for each in answer.get("Contents", ())]


def _is_kept(bucket: str, key: str) -> bool:
    """Whether obstore takes a key as it is."""
    return bucket_and_key(f"s3://{bucket}/{key}") == (bucket, key) and not key.startswith("/")


def _begin_with_slash(fs: Any, bucket: str) -> bool:
    answer = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix="/", MaxKeys=1)
    return any(each["Key"].startswith("/") for each in answer.get("Contents", ()))
