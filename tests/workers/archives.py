"""Tar shards and Parquet files with images in them, as other tools write them."""

import contextlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.spec import FetchSpec
from tests.s3 import S3Server
from tests.s3_proxy import Exchange, Hook, forget_clients, proxying
from workers.manifest.formats.tar import rows_of_tar

SPEC = FetchSpec()

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How Hugging Face's datasets store an image."""


def tar_bytes(members: Iterable[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar file of plain files, as `tarfile` writes it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def shard_of(photos: Sequence[Path]) -> bytes:
    """A shard as img2dataset writes it: each image with its metadata and its caption."""
    return tar_bytes(
        member
        for number, photo in enumerate(photos)
        for member in (
            (f"{number:09d}{photo.suffix}", photo.read_bytes()),
            (f"{number:09d}.json", b'{"url": "https://example.com/a.jpg", "status": "success"}'),
            (f"{number:09d}.txt", b"a caption"),
        )
    )


def write_hf(path: Path, photos: Sequence[bytes | None], row_group_size: int = 100) -> None:
    """A Parquet file as Hugging Face's datasets write it: an image and its class in each row."""
    images = [
        None if data is None else {"bytes": data, "path": f"photo-{n}.jpg"} for n, data in enumerate(photos)
    ]
    columns = {"image": pa.array(images, HF_IMAGE), "label": pa.array(range(len(photos)), pa.int64())}
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)


def found_in(tar: Path | str) -> list[tuple[str | None, str | None, str | None]]:
    """Of each manifest row of a tar file: its id, the name of its member, and its code where it will fail."""
    return [(row.get("image_id"), row.get("name"), row.get("code")) for row in rows_of_tar(str(tar), SPEC)]


@contextlib.contextmanager
def watched(s3: S3Server, spoil: Hook = lambda _: None) -> Iterator[list[Exchange]]:
    """The usual AWS variables lead to the server by a way on which GETs are seen, and can be spoilt."""
    gets: list[Exchange] = []

    def after(exchange: Exchange) -> None:
        if exchange.method == "GET":
            gets.append(exchange)
            spoil(exchange)

    with proxying(s3, after=after) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        forget_clients()
        yield gets
    forget_clients()


def sizes(gets: list[Exchange]) -> list[int]:
    """The bytes that each answer brought."""
    return [len(get.answer.body) for get in gets if get.answer]
