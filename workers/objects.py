"""Image files in S3, read by obstore, in a seventh of s3fs's time, from where s3fs would read them."""

import functools
import math
import os
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.asyn import get_loop, sync
from obstore.exceptions import BaseError
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Credential

CREDENTIALS_LIVE = timedelta(minutes=6)
"""How long obstore keeps credentials; it asks for new ones five minutes before they end."""

UNSIGNED_S = 20
"""Seconds after which credentials are looked for again where there were none and a request was refused."""

WORKERS = "TOKIO_WORKER_THREADS"
"""Threads of obstore's own in a process: one a core unless told, in each of as many processes as cores."""

_BUCKET = re.compile(r"s3a?://([\w.-]+)/(.+)")
_EXPRESS = "--x-s3"
_ELSEWHERE = re.compile("redirect without LOCATION|<Code>(PermanentRedirect|AuthorizationHeaderMalformed)<")

_stores: dict[tuple[str, float], S3Store] = {}
_unsigned_since: dict[tuple[str, float], float] = {}
_opening = threading.Lock()


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
            ConnectionError, also where fewer bytes came than the object has.
        botocore.exceptions.BotoCoreError: the bucket cannot be reached the way it is configured.
    """
    store = _store(bucket, timeout_s)
    try:
        found = store.get(key, options={"range": (start, start + most)})
        data = found.bytes().to_bytes()
    except (BaseError, FileNotFoundError) as error:
        said = str(error)
        if _ELSEWHERE.search(said):
            _stores.pop((bucket, timeout_s), None)  # its region could not be asked for when it was opened
        failure = _failure(said)
        if getattr(failure, "status", 0) in (401, 403) and _was_opened_unsigned((bucket, timeout_s)):
            forget()
        raise failure from None
    first, end = found.range
    if len(data) != end - first:  # obstore believes a short body that has the length it was announced with
        raise ConnectionError(f"{len(data):,} of {end - first:,} bytes came")
    return data


def forget() -> None:
    """Opens every bucket anew from now on, as the environment is then."""
    with _opening:
        _stores.clear()
        _unsigned_since.clear()
        _s3fs.cache_clear()


def _was_opened_unsigned(key: tuple[str, float]) -> bool:
    """Whether a bucket was opened without credentials some time ago: those of a role may have come late."""
    return time.monotonic() - _unsigned_since.get(key, math.inf) > UNSIGNED_S


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


def _store(bucket: str, timeout_s: float) -> S3Store:
    """The bucket, opened once in this process, by whoever comes first."""
    if store := _stores.get((bucket, timeout_s)):
        return store
    if not _opening.acquire(timeout=timeout_s):
        raise TimeoutError(f"bucket {bucket} is still being opened")
    try:
        if (bucket, timeout_s) not in _stores:
            _stores[bucket, timeout_s] = _open(bucket, timeout_s)
        return _stores[bucket, timeout_s]
    finally:
        _opening.release()


def _open(bucket: str, timeout_s: float) -> S3Store:
    """A bucket where s3fs finds it, by environment, files, profile and role, with the same credentials.

    The environment that obstore would read by itself has no say, as what it knows of is given.
    """
    os.environ.setdefault(WORKERS, "2")
    s3fs, url, region = sync(get_loop(), _place, bucket, timeout=timeout_s)
    if s3fs.anon:
        _unsigned_since[bucket, timeout_s] = time.monotonic()
    most = timedelta(seconds=timeout_s)
    client: ClientConfig = {"timeout": most, "connect_timeout": most, "allow_http": url.startswith("http://")}
    if certificates := s3fs.session.get_config_variable("ca_bundle"):
        client["root_certificate"] = Path(certificates).read_bytes()
    return S3Store(
        bucket,
        aws_endpoint_url_s3=url,
        virtual_hosted_style_request=True,  # the bucket is in the URL, wherever botocore puts it
        region=region,
        skip_signature=s3fs.anon,
        request_payer=s3fs.requester_pays,
        credential_provider=None if s3fs.anon else functools.partial(_signer, s3fs, timeout_s),
        client_options=client,
        retry_config={"max_retries": 0},  # whoever calls counts
    )


@functools.cache
def _s3fs(*, anonymous: bool) -> Any:
    """This process's s3fs, which asks each bucket for its region."""
    config = {"signature_version": "s3v4", "retries": {"total_max_attempts": 1}}
    options = {"anon": True} if anonymous else {}  # unless it is configured otherwise
    return fsspec.filesystem(
        "s3", cache_regions=True, config_kwargs=config, skip_instance_cache=True, **options
    )


async def _place(bucket: str) -> tuple[Any, str, str]:
    """The s3fs that reads a bucket, the bucket's URL, as botocore makes it, and its region."""
    s3fs = _s3fs(anonymous=False)
    await s3fs.set_session()
    if _credentials(s3fs) is None:
        s3fs = _s3fs(anonymous=True)
        await s3fs.set_session()
    client = await s3fs.get_s3(bucket)
    signed = await client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "key"})
    return s3fs, signed.partition("?")[0].removesuffix("/key"), client.meta.region_name


def _signer(s3fs: Any, timeout_s: float) -> "S3Credential":
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
