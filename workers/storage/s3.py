"""Files in S3, read and listed by obstore, in a seventh of s3fs's time, from where s3fs would read them."""

import functools
import hashlib
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
from workers.storage.options import options_for, s3_config, s3_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from obstore import ObjectMeta
    from obstore.store import ClientConfig, S3Credential

CREDENTIALS_LIVE = timedelta(minutes=6)
"""How long obstore keeps credentials; it asks for new ones five minutes before they end."""

MOST_WITHOUT_RANGES = 64 * 2**20
"""Bytes of an object that is read as a whole where a server knows no ranges."""

UNSIGNED_S = 20
"""Seconds after which credentials are looked for again where there were none and a request was refused."""

TOKIO_THREADS = "TOKIO_WORKER_THREADS"
"""Threads of obstore's own in a process: one a core unless told, in each of as many processes as cores."""

_BUCKET = re.compile(r"s3a?://([\w.-]+)/(.+)")
_EXPRESS = "--x-s3"
_ELSEWHERE = re.compile("redirect without LOCATION|<Code>(PermanentRedirect|AuthorizationHeaderMalformed)<")

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
EXPIRED_CODES = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired")
"""What S3 says of credentials that were good."""

_stores: dict["_Bucket", S3Store] = {}
_etag_not_md5: set["_Bucket"] = set()
_unsigned_since: dict["_Bucket", float] = {}
_opening = threading.Lock()


class _Bucket(NamedTuple):
    """What one store of obstore's is for: its bucket, how that is reached, and how long a GET may take."""

    name: str
    settings: StorageOptions
    timeout_s: float


class ObjectError(ConnectionError):
    """A server's answer to a GET that is not the object.

    Attributes:
        status: of HTTP.
        s3_code: S3's own, such as "SlowDown"; "" where the answer has none.
    """

    def __init__(self, status: int, s3_code: str, message: str) -> None:
        super().__init__(" ".join(filter(None, (f"status {status}", s3_code, message))))
        self.status = status
        self.s3_code = s3_code


class ChangedError(OSError):
    """The bytes that came are not those that were stored."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def s3_code(error: BaseException) -> str:
    """The code of an S3 answer, which s3fs keeps as the cause of its own exception; "" of any other."""
    for cause in causes(error):
        if isinstance(cause, ObjectError):
            return cause.s3_code
        if isinstance(answer := getattr(cause, "response", None), dict):
            return str(answer.get("Error", {}).get("Code", ""))
    return ""


def bucket_and_key(location: str) -> tuple[str, str] | None:
    """The bucket and key of an S3 object; None of any other location, and where obstore has no way to it.

    It takes a slash off the beginning of a key, refuses keys with empty segments, with "." and "..", and with
    control characters, and knows neither the names of access points nor how directory buckets are signed for.
    """
    if not (found := _BUCKET.fullmatch(location)) or not location.isprintable():
        return None
    bucket, key = found[1], found[2].rstrip("/")
    odd = "?versionId=" in key or any(part in ("", ".", "..") for part in key.split("/"))
    return None if odd or bucket.endswith(_EXPRESS) else (bucket, key)


def read(bucket: str, key: str, most: int, timeout_s: float, start: int = 0) -> bytes:
    """An object, or a part of it where it is larger, by one GET that is tried once.

    Args:
        bucket: its bucket.
        key: its key, as it is, not percent-encoded.
        most: bytes to read.
        timeout_s: seconds the GET may take; where the bucket was not read before, waiting for another thread
            to open it and opening it may each take as long.
        start: the first byte to read.

    Raises:
        OSError: it cannot be read; an ObjectError where the server said why, a TimeoutError, or a
            ConnectionError, also where fewer bytes came than the object has; a ChangedError where others did.
        botocore.exceptions.BotoCoreError: the bucket cannot be reached the way it is configured.
    """
    where = _Bucket(bucket, options_for(f"s3://{bucket}/{key}"), timeout_s)
    data, md5 = _get(where, key, start, most)
    if where in _etag_not_md5 or _is_of(data, md5):
        return data
    # either a byte changed on the way, or the ETags of this bucket are no MD5: it may be encrypted so
    again, md5 = _get(where, key, start, most)
    if _is_of(again, md5):
        return again
    if again != data:
        raise ChangedError(f"{len(data):,} bytes came that are not those of ETag {md5}")
    _etag_not_md5.add(where)
    return data


def _is_of(data: bytes, md5: str) -> bool:
    return not md5 or hashlib.md5(data, usedforsecurity=False).hexdigest() == md5


def _get(where: _Bucket, key: str, start: int, most: int) -> tuple[bytes, str]:
    """The bytes of one GET, and what their MD5 should be; "" where that is not known."""
    store = _store(where)
    try:
        found, data = _answer(store, key, start, most)
    except (BaseError, FileNotFoundError) as error:
        said = str(error)
        failure = _failure(said)
        if _ELSEWHERE.search(said):
            _stores.pop(where, None)  # its region could not be asked for when it was opened
        if _is_refused_for_its_credentials(failure, where):
            reset_clients()
        raise failure from None
    first, end = found.range
    if len(data) != end - first:  # obstore believes a short body that has the length it was announced with
        raise ConnectionError(f"{len(data):,} of {end - first:,} bytes came")
    if first < start or len(data) > most:  # the server gave the whole
        return data[start : start + most], ""
    whole, tag = end - first == found.meta["size"], _MD5.fullmatch(found.meta["e_tag"] or "")
    return data, tag[1] if whole and tag else ""


def _answer(store: S3Store, key: str, start: int, most: int) -> tuple[Any, bytes]:
    """The answer to one GET of a part, and its body.

    A server that answers it as if the whole had been asked for (200 in place of 206, as rclone does) is asked
    for the whole, where that is not much.
    """
    try:
        found = store.get(key, options={"range": (start, start + most)})
        return found, found.bytes().to_bytes()
    except BaseError as error:
        if "NotPartial" not in str(error):
            raise
        whole = store.get(key)
        if whole.meta["size"] > MOST_WITHOUT_RANGES:
            raise
        return whole, whole.bytes().to_bytes()


def pages(
    bucket: str, prefix: str, after: str, most: int, timeout_s: float
) -> "Iterator[Sequence[ObjectMeta]]":
    """What is below a prefix, some at a time, in the server's order, each request being tried once.

    Args:
        bucket: its name.
        prefix: a folder with its slash, or "" for the whole bucket.
        after: a key; what the server has after it is given.
        most: objects at a time.
        timeout_s: seconds that a request may take.

    Raises:
        obstore.exceptions.BaseError: it cannot be listed, or there is a key that obstore does not take.
        OSError: the bucket cannot be opened.
        ValueError: obstore does not take `prefix` or `after`.
        botocore.exceptions.BotoCoreError: the bucket cannot be reached the way it is configured.
    """
    store = _store(_Bucket(bucket, options_for(f"s3://{bucket}/{prefix}"), timeout_s))
    yield from obstore.list(store, prefix or None, offset=after or None, chunk_size=most)


def reset_clients() -> None:
    """Opens every bucket anew from now on, as the environment is then."""
    with _opening:
        _stores.clear()
        _unsigned_since.clear()
        _etag_not_md5.clear()
        _s3fs.cache_clear()


def _is_refused_for_its_credentials(failure: OSError, where: _Bucket) -> bool:
    """Whether others may be found: those in use have ended, or there were none, some time ago, of a role."""
    if not isinstance(failure, ObjectError):
        return False
    unsigned_s = time.monotonic() - _unsigned_since.get(where, math.inf)
    return failure.s3_code in EXPIRED_CODES or (failure.status in (401, 403) and unsigned_s > UNSIGNED_S)


def _failure(said: str) -> OSError:
    """What obstore's exception, whose text alone tells, is about."""
    if answer := re.search(r"status code: (\d{3})", said):
        code = re.search(r"<Code>(\w+)</Code>", said)
        message = re.search(r"<Message>(.*?)</Message>", said, re.DOTALL)
        return ObjectError(int(answer[1]), code[1] if code else "", message[1] if message else "")
    if "kind: Timeout" in said:
        return TimeoutError("the server did not answer in time")
    summary, _, details = said.partition("\n")
    cause = " ".join(details.rpartition("source: ")[2].split()).rstrip(" ,)}")
    return ConnectionError(f"{summary}: {cause}")


def _store(where: _Bucket) -> S3Store:
    """The bucket, opened once in this process, by whoever comes first."""
    if store := _stores.get(where):
        return store
    if not _opening.acquire(timeout=where.timeout_s):
        raise TimeoutError(f"bucket {where.name} is still being opened")
    try:
        if where not in _stores:
            _stores[where] = _open(where)
        return _stores[where]
    finally:
        _opening.release()


def _open(where: _Bucket) -> S3Store:
    """A bucket where s3fs finds it, by environment, files, profile and role, with the same credentials.

    The environment that obstore would read by itself has no say, as what it knows of is given.
    """
    os.environ.setdefault(TOKIO_THREADS, "2")
    s3fs, url, region = sync(get_loop(), _found, where, timeout=where.timeout_s)
    if s3fs.anon and not where.settings.anonymous:
        _unsigned_since[where] = time.monotonic()
    most = timedelta(seconds=where.timeout_s)
    client: ClientConfig = {"timeout": most, "connect_timeout": most, "allow_http": url.startswith("http://")}
    if certificates := s3fs.session.get_config_variable("ca_bundle"):
        client["root_certificate"] = Path(certificates).read_bytes()
    return S3Store(
        where.name,
        aws_endpoint_url_s3=url,
        virtual_hosted_style_request=True,  # the bucket is in the URL, wherever botocore puts it
        region=region,
        skip_signature=s3fs.anon,
        request_payer=s3fs.requester_pays,
        credential_provider=None
        if s3fs.anon
        else functools.partial(_credential_provider, s3fs, where.timeout_s),
        client_options=client,
        retry_config={"max_retries": 0},  # whoever calls counts
    )


@functools.cache
def _s3fs(settings: StorageOptions) -> Any:
    """This process's s3fs for a place, which asks each bucket for its region."""
    options = {**s3_options(settings), "config_kwargs": s3_config(tries=1)}
    return fsspec.filesystem("s3", cache_regions=not settings.region, skip_instance_cache=True, **options)


async def _found(where: _Bucket) -> tuple[Any, str, str]:
    """The s3fs that reads a bucket, the bucket's URL, as botocore makes it, and its region."""
    s3fs = _s3fs(where.settings)
    await s3fs.set_session()
    if _credentials(s3fs) is None:
        s3fs = _s3fs(where.settings.model_copy(update={"anonymous": True}))
        await s3fs.set_session()
    client = await s3fs.get_s3(where.name)
    signed = await client.generate_presigned_url("get_object", {"Bucket": where.name, "Key": "key"})
    return s3fs, signed.partition("?")[0].removesuffix("/key"), client.meta.region_name


def _credential_provider(s3fs: Any, timeout_s: float) -> "S3Credential":
    """The credentials of now: botocore gets new ones in time where they end."""
    now = sync(s3fs.loop, _credentials(s3fs).get_frozen_credentials, timeout=timeout_s)
    ends = datetime.now(UTC) + CREDENTIALS_LIVE
    return {
        "access_key_id": now.access_key,
        "secret_access_key": now.secret_key,
        "token": now.token,
        "expires_at": ends,
    }


def _credentials(s3fs: Any) -> Any:
    """What botocore signs with, wherever it found it; None where it found nothing."""
    return s3fs.s3._request_signer._credentials
