"""Objects in S3, read and listed by obstore in a seventh of the time that s3fs takes.

s3fs (botocore) finds endpoint, region and credentials as AWS's own tools do; obstore is given what it found.
"""

import functools
import hashlib
import io
import logging
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec
import obstore
from fsspec.asyn import get_loop, sync
from obstore.exceptions import BaseError
from obstore.store import S3Store

from schemas.spec import StorageOptions
from workers.storage.answers import NotPartialError, Part, TooManyBytesError
from workers.storage.encodings import decoded, encodings_of
from workers.storage.options import options_for, s3_config, s3_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from obstore import ObjectMeta
    from obstore.store import ClientConfig, S3Credential

_log = logging.getLogger(__name__)

CREDENTIALS_LIFETIME = timedelta(minutes=6)
"""Lifetime of credentials that obstore is given; it requests new ones five minutes before the end."""

MAX_WITHOUT_RANGES = 64 * 2**20
"""Size in bytes up to which an object is read whole for a part of it, if the server ignores ranges."""

PIECE = 8 * 2**20
"""Bytes of an object that are in memory twice while it is read."""

UNSIGNED_S = 20
"""Seconds after which a refused request without credentials makes this process look for credentials again."""

TOKIO_THREADS = "TOKIO_WORKER_THREADS"
"""Environment variable with the number of obstore's threads; the default is one for each core, in each
process, and there are as many processes as cores."""

_BUCKET = re.compile(r"s3a?://([\w.-]+)/(.+)")
_DIRECTORY_BUCKET_SUFFIX = "--x-s3"
_WRONG_REGION = re.compile(
    "redirect without LOCATION|<Code>(PermanentRedirect|AuthorizationHeaderMalformed)<"
)

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
EXPIRED_CODES = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired")
"""S3's codes for expired credentials."""

_stores: dict["_Bucket", S3Store] = {}
_etag_not_md5: set["_Bucket"] = set()
_unsigned_since: dict["_Bucket", float] = {}
_open_lock = threading.Lock()


class _Bucket(NamedTuple):
    """The key of an open `S3Store`: bucket name, storage options and the seconds that a request may take."""

    name: str
    options: StorageOptions
    timeout_s: float


class ObjectError(ConnectionError):
    """An error response of the server.

    Attributes:
        status: HTTP status.
        s3_code: S3's error code, such as "SlowDown"; "" if the response has none.
    """

    def __init__(self, status: int, s3_code: str, message: str) -> None:
        super().__init__(" ".join(filter(None, (f"status {status}", s3_code, message))))
        self.status = status
        self.s3_code = s3_code


class ChangedError(OSError):
    """The bytes received are not those that were stored."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and its chain of causes (`raise ... from`)."""
    while error is not None:
        yield error
        error = error.__cause__


def s3_code(error: BaseException) -> str:
    """The S3 error code in an exception or its causes, where s3fs keeps it; "" if there is none."""
    for cause in causes(error):
        if isinstance(cause, ObjectError):
            return cause.s3_code
        if isinstance(response := getattr(cause, "response", None), dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def bucket_and_key(location: str) -> tuple[str, str] | None:
    """The bucket and key of an S3 object; None for another location, or one that obstore cannot read.

    obstore removes slashes at the beginning and at the end of a key. It refuses keys with empty segments,
    ".", ".." or control characters, names of access points, and directory buckets, which are signed for
    differently.
    """
    if not (match := _BUCKET.fullmatch(location)) or not location.isprintable():
        return None
    bucket, key = match[1], match[2]
    unreadable = "?versionId=" in key or any(part in ("", ".", "..") for part in key.split("/"))
    return None if unreadable or bucket.endswith(_DIRECTORY_BUCKET_SUFFIX) else (bucket, key)


def read(bucket_name: str, key: str, part: Part, timeout_s: float) -> bytes:
    """Reads an object, or a part of it, by one GET without retries.

    A whole object is decoded if it is stored with a Content-Encoding; a part of one is not.

    Args:
        bucket_name: its bucket.
        key: its key, not percent-encoded.
        part: what to read of it.
        timeout_s: seconds the GET may take. If this process has not read the bucket before, waiting for
            another thread to open it, and opening it, may each take as long.

    Raises:
        OSError: it cannot be read: an ObjectError with the server's reason, a TimeoutError, a ConnectionError
            (also if fewer bytes came than announced), a ChangedError, a TooManyBytesError, or an
            EncodingError.
        botocore.exceptions.BotoCoreError: the configuration of the bucket is not valid.
    """
    bucket = _Bucket(bucket_name, options_for(f"s3://{bucket_name}/{key}"), timeout_s)
    data, encodings = _read_stored(bucket, key, part)
    if part.size is not None or not encodings:
        return data
    return decoded(io.BytesIO(data), encodings, part.most)


def _read_stored(bucket: _Bucket, key: str, part: Part) -> tuple[bytes, list[str]]:
    """The bytes of an object as they are stored, and the encodings that they have."""
    data, md5, encodings = _get(bucket, key, part)
    if bucket in _etag_not_md5 or _has_md5(data, md5):
        return data, encodings
    # Either a byte changed on the way, or this bucket's ETags are no MD5 (as with some kinds of encryption).
    # A second GET tells: two equal answers that differ from the ETag mean that it is no MD5
    again, md5, encodings = _get(bucket, key, part)
    if _has_md5(again, md5):
        return again, encodings
    if again != data:
        raise ChangedError(f"{len(data):,} bytes came that are not those of ETag {md5}")
    _etag_not_md5.add(bucket)
    return data, encodings


def _has_md5(data: bytes, md5: str) -> bool:
    """Whether data has an MD5, in hexadecimal digits; True for "", which stands for one that is not known."""
    return not md5 or hashlib.md5(data, usedforsecurity=False).hexdigest() == md5


def _get(bucket: _Bucket, key: str, part: Part) -> tuple[bytes, str, list[str]]:
    """The bytes of one GET, their expected MD5 ("" if that is not known), and the encodings they have."""
    store = _store(bucket)
    try:
        result = _answer(store, key, part)
        data = _collected(result, part)
    except (BaseError, FileNotFoundError) as error:
        message = str(error)
        failure = _failure(message)
        if isinstance(failure, ObjectError) and failure.status == 416:  # the object ends before `start`
            return b"", "", []
        # s3fs asks for a bucket's region as it opens it. If that request fails it goes on with the default
        # region, so a wrong one is found only here; the next read opens the bucket, and asks, again
        if _WRONG_REGION.search(message):
            _stores.pop(bucket, None)
        if _may_have_new_credentials(failure, bucket):
            reset_clients()
            _log.info("s3://%s refused the credentials (%s); looking for new ones", bucket.name, failure)
        raise failure from None
    first, _ = result.range
    encodings = encodings_of(result.attributes.get("Content-Encoding", ""), key)
    if first < part.start:  # the server sent the whole object
        return data[part.start :], "", encodings
    whole, tag = len(data) == result.meta["size"], _MD5.fullmatch(result.meta["e_tag"] or "")
    return data, tag[1] if whole and tag else "", encodings


def _answer(store: S3Store, key: str, part: Part) -> Any:
    """What a server answers to one GET of a range; its body is not read yet.

    A server may ignore the range (status 200 in place of 206, as rclone), which makes obstore raise, or
    refuse one that is longer than the object. The object is then asked for without a range.
    """
    size = part.most + 1 if part.size is None else part.size
    try:
        return store.get(key, options={"range": (part.start, part.start + size)})
    except BaseError as error:
        ignored, refused = "NotPartial" in str(error), "status code: 416" in str(error)
        if not (ignored or (refused and not part.start)):
            raise
        whole = store.get(key)
        if part.start and whole.meta["size"] > MAX_WITHOUT_RANGES:
            raise NotPartialError("its server does not support range requests") from None
        return whole


def _collected(result: Any, part: Part) -> bytes:
    """The body of an answer, up to the last byte that is wanted.

    Raises:
        TooManyBytesError: a whole object is wanted, and has more bytes than it may.
        ConnectionError: fewer bytes came than the server announced.
    """
    if part.size is None and result.meta["size"] > part.most:
        raise TooManyBytesError(f"more than {part.most:,} bytes")
    first, end = result.range
    expected = end - first if part.size is None else min(end, part.start + part.size) - first
    body = io.BytesIO()
    for piece in result.stream(min_chunk_size=PIECE):
        body.write(memoryview(piece)[: expected - body.tell()])
        if body.tell() == expected:
            break
    if body.tell() < expected:  # obstore accepts a body shorter than the range if Content-Length agrees
        raise ConnectionError(f"{body.tell():,} of {expected:,} bytes came")
    return body.getvalue()


def pages(
    bucket: str, prefix: str, after: str, page_size: int, timeout_s: float
) -> "Iterator[Sequence[ObjectMeta]]":
    """Pages of the objects below a prefix, in the server's order, without retries.

    Args:
        bucket: its name.
        prefix: a folder with its slash, or "" for the whole bucket.
        after: a key; the list starts after it.
        page_size: objects in a page.
        timeout_s: seconds that a request may take.

    Raises:
        obstore.exceptions.BaseError: it cannot be listed, or there is a key that obstore refuses.
        OSError: the bucket cannot be opened.
        ValueError: obstore refuses `prefix` or `after`.
        botocore.exceptions.BotoCoreError: the configuration of the bucket is not valid.
    """
    store = _store(_Bucket(bucket, options_for(f"s3://{bucket}/{prefix}"), timeout_s))
    yield from obstore.list(store, prefix or None, offset=after or None, chunk_size=page_size)


def reset_clients() -> None:
    """Forgets all open buckets: the next read looks for configuration and credentials again."""
    with _open_lock:
        _stores.clear()
        _unsigned_since.clear()
        _etag_not_md5.clear()
        _s3fs.cache_clear()


def _may_have_new_credentials(failure: OSError, bucket: _Bucket) -> bool:
    """Whether to look for credentials again after a failure.

    That is if those in use have expired, or if there were none when the bucket was opened, `UNSIGNED_S` or
    longer ago: the service that hands out a role's credentials may not have responded then.
    """
    if not isinstance(failure, ObjectError):
        return False
    unsigned_s = time.monotonic() - _unsigned_since.get(bucket, math.inf)
    return failure.s3_code in EXPIRED_CODES or (failure.status in (401, 403) and unsigned_s > UNSIGNED_S)


def _failure(text: str) -> OSError:
    """The error behind an exception of obstore's, from its text: it has no attributes for them."""
    if status := re.search(r"status code: (\d{3})", text):
        code = re.search(r"<Code>(\w+)</Code>", text)
        message = re.search(r"<Message>(.*?)</Message>", text, re.DOTALL)
        return ObjectError(int(status[1]), code[1] if code else "", message[1] if message else "")
    if "kind: Timeout" in text:
        return TimeoutError("the server did not answer in time")
    summary, _, details = text.partition("\n")
    cause = " ".join(details.rpartition("source: ")[2].split()).rstrip(" ,)}")
    return ConnectionError(f"{summary}: {cause}")


def _store(bucket: _Bucket) -> S3Store:
    """The store of a bucket, opened once in this process by the first thread that reads it."""
    if store := _stores.get(bucket):
        return store
    if not _open_lock.acquire(timeout=bucket.timeout_s):
        raise TimeoutError(f"bucket {bucket.name} is still being opened")
    try:
        if bucket not in _stores:
            _stores[bucket] = _open(bucket)
        return _stores[bucket]
    finally:
        _open_lock.release()


def _open(bucket: _Bucket) -> S3Store:
    """Opens a bucket with the endpoint, region and credentials that s3fs finds (environment, files, role).

    obstore reads only the environment, and no profiles; each argument given here overrides what it reads.
    """
    os.environ.setdefault(TOKIO_THREADS, "2")
    s3fs, url, region = sync(get_loop(), _find, bucket, timeout=bucket.timeout_s)
    if s3fs.anon and not bucket.options.anonymous:
        _unsigned_since[bucket] = time.monotonic()
    timeout = timedelta(seconds=bucket.timeout_s)
    client: ClientConfig = {
        "timeout": timeout,
        "connect_timeout": timeout,
        "allow_http": url.startswith("http://"),
    }
    if certificates := s3fs.session.get_config_variable("ca_bundle"):
        client["root_certificate"] = Path(certificates).read_bytes()
    return S3Store(
        bucket.name,
        aws_endpoint_url_s3=url,
        virtual_hosted_style_request=True,  # the URL of botocore has the bucket, in the host or in the path
        region=region,
        skip_signature=s3fs.anon,
        request_payer=s3fs.requester_pays,
        credential_provider=None
        if s3fs.anon
        else functools.partial(_credential_provider, s3fs, bucket.timeout_s),
        client_options=client,
        retry_config={"max_retries": 0},  # the caller retries
    )


@functools.cache
def _s3fs(options: StorageOptions) -> Any:
    """The s3fs for some storage options; it asks each bucket for its region, unless the options name one."""
    arguments = {**s3_options(options), "config_kwargs": s3_config(attempts=1)}
    return fsspec.filesystem("s3", cache_regions=not options.region, skip_instance_cache=True, **arguments)


async def _find(bucket: _Bucket) -> tuple[Any, str, str]:
    """The s3fs for a bucket (anonymous without credentials), the bucket's URL by botocore, and its region."""
    s3fs = _s3fs(bucket.options)
    await s3fs.set_session()
    if _credentials(s3fs) is None:
        s3fs = _s3fs(bucket.options.model_copy(update={"anonymous": True}))
        await s3fs.set_session()
    client = await s3fs.get_s3(bucket.name)
    # botocore has no function for a bucket's URL, but puts it into the URLs that it signs
    signed = await client.generate_presigned_url("get_object", {"Bucket": bucket.name, "Key": "key"})
    return s3fs, signed.partition("?")[0].removesuffix("/key"), client.meta.region_name


def _credential_provider(s3fs: Any, timeout_s: float) -> "S3Credential":
    """The current credentials for obstore; botocore renews those that expire.

    botocore does not tell when that is, so obstore gets a short lifetime and asks again.
    """
    current = sync(s3fs.loop, _credentials(s3fs).get_frozen_credentials, timeout=timeout_s)
    expires_at = datetime.now(UTC) + CREDENTIALS_LIFETIME
    return {
        "access_key_id": current.access_key,
        "secret_access_key": current.secret_key,
        "token": current.token,
        "expires_at": expires_at,
    }


def _credentials(s3fs: Any) -> Any:
    """The credentials object that botocore signs with; None if it found none."""
    return s3fs.s3._request_signer._credentials
