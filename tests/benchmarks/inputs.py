"""What it takes to find the images of a tar shard, and to read images out of shards and Parquet columns.

    python -m tests.benchmarks.inputs

Files are on a real S3 server on this machine, which answers at once; what a storage farther away takes is
reckoned from the requests and bytes.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.locations import Location, ParquetCell, TarMember
from schemas.spec import FetchSpec
from tests.benchmarks.photos import make_photos
from tests.s3 import S3Server, running_server
from tests.workers.archives import shard_of, tar_bytes, write_hf
from workers.fetch import ranges
from workers.fetch.locate import read_image
from workers.fetch.parquet_column import ColumnReader
from workers.manifest.formats.tar import rows_of_tar
from workers.storage import s3

REQUEST_S, BYTES_PER_S = 0.03, 70e6
"""Of a storage farther away: until the first byte, and from then on."""

BUNDLE_ROWS, ACTORS, THREADS, ROUNDS = 512, 2, 16, 3

SMALL_PAGES = {"row_group_size": 4000, "write_batch_size": 8}
"""As pyarrow writes them by itself, a page has up to 1,024 values, whatever their size."""


@dataclass
class Traffic:
    """What was asked of the server."""

    requests: int = 0
    read: int = 0

    @property
    def far_s(self) -> float:
        """What it would take one after another from farther away."""
        return self.requests * REQUEST_S + self.read / BYTES_PER_S


@contextmanager
def counted() -> Iterator[Traffic]:
    """Counts the range requests in a block."""
    traffic, plain = Traffic(), ranges.fetch  # type: ignore[attr-defined]

    def counting(uri: str, spec: FetchSpec, start: int = 0, size: int | None = None) -> bytes:
        data = plain(uri, spec, start, size)
        traffic.requests += 1
        traffic.read += len(data)
        return data

    ranges.fetch = counting  # type: ignore[attr-defined,assignment]
    try:
        yield traffic
    finally:
        ranges.fetch = plain  # type: ignore[attr-defined]


def main() -> None:
    """Prints a line for each case."""
    photos = sorted(make_photos(1000).glob("*.jpg"))
    with running_server() as server, tempfile.TemporaryDirectory() as folder:
        os.environ.update(server.environment)
        s3.reset_clients()
        bucket = server.new_bucket()
        shards = {
            "1,000 samples of 100 KB": shard_of(photos),
            "10,000 samples of 10 KB": tar_bytes((f"{n:06d}.jpg", bytes(10_000)) for n in range(10_000)),
            "100 images of 5 MB": tar_bytes((f"{n:06d}.jpg", bytes(5_000_000)) for n in range(100)),
        }
        read_images(photos, server, bucket, Path(folder))
        for name, shard in shards.items():
            index(name, shard, server, bucket, Path(folder, "a.tar"))
        for how in ({"row_group_size": 100}, {"row_group_size": 1000}, {"row_group_size": 4000}, SMALL_PAGES):
            read_column(photos * 4, how, server, bucket, Path(folder, "a.parquet"))


def read_images(photos: list[Path], server: S3Server, bucket: str, folder: Path) -> None:
    """Reads the same photos as files, as members of a shard and as values of a column."""
    (folder / "a.tar").write_bytes(shard_of(photos))
    write_hf(folder / "a.parquet", [photo.read_bytes() for photo in photos])
    files = server.files()
    for path in (folder / "a.tar", folder / "a.parquet", *photos):
        files.put(str(path), f"{bucket}/{path.name}")
    rows = list(rows_of_tar(f"{folder}/a.tar", FetchSpec()))
    for where in (str(folder), f"s3://{bucket}"):
        plain = where if "://" in where else str(photos[0].parent)
        cases: dict[str, list[Location]] = {
            "files": [f"{plain}/{photo.name}" for photo in photos],
            "members": [
                TarMember(f"{where}/a.tar", row["name"], (row["start"], row["size"])) for row in rows
            ],
            "values": [ParquetCell(f"{where}/a.parquet", "image", row) for row in range(len(photos))],
        }
        for name, locations in cases.items():
            costs = [cost(locations, 1 if name == "values" else THREADS) for _ in range(ROUNDS)]
            print(f"{name}, {where[:2]}: {1e3 * min(costs):.2f} CPU ms an image", flush=True)


def cost(locations: list[Location], threads: int) -> float:
    """CPU seconds an image of reading some."""
    read_image(locations[0], FetchSpec())
    began = time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda location: read_image(location, FetchSpec()), locations))
    return (time.process_time() - began) / len(locations)


def index(name: str, shard: bytes, server: S3Server, bucket: str, path: Path) -> None:
    """Reads the headers of a shard, from a disk and from the server."""
    path.write_bytes(shard)
    server.files().pipe_file(f"{bucket}/a.tar", shard)
    for place in (str(path), f"s3://{bucket}/a.tar"):
        began, cpu = time.perf_counter(), time.process_time()
        with counted() as traffic:
            rows = sum(1 for _ in rows_of_tar(place, FetchSpec()))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        far = f"; far away {traffic.far_s:.1f} s" if traffic.requests else ""
        print(
            f"{name}, {len(shard) >> 20} MB, {place[:2]}: {rows:,} rows in {seconds:.2f} s, "
            f"{1e6 * cpu / rows:.0f} CPU us each; {traffic.requests} requests, {traffic.read >> 20} MB{far}",
            flush=True,
        )


def read_column(photos: list[Path], how: dict[str, int], server: S3Server, bucket: str, path: Path) -> None:
    """Reads a column as the actors of a run do, who are handed bundles of units in turn."""
    data = [random.Random(n).randbytes(photo.stat().st_size) for n, photo in enumerate(photos)]
    pq.write_table(pa.table({"image": pa.array(data, pa.binary())}), path, **how)
    server.files().put(str(path), f"{bucket}/a.parquet")
    whole, most = path.stat().st_size, 0
    readers = [ColumnReader(f"s3://{bucket}/a.parquet", "image", FetchSpec()) for _ in range(ACTORS)]
    before, began, cpu = pa.total_allocated_bytes(), time.perf_counter(), time.process_time()
    with counted() as traffic:
        for number, start in enumerate(range(0, len(data), BUNDLE_ROWS)):
            for row in range(start, min(start + BUNDLE_ROWS, len(data))):
                assert readers[number % ACTORS](row) == data[row]
                most = max(most, pa.total_allocated_bytes() - before)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        f"{len(data):,} images, {whole >> 20} MB, {how}: {traffic.requests} requests, "
        f"{traffic.read / whole:.2f} times the file, {most >> 20} MB of memory, "
        f"{1e3 * cpu / len(data):.2f} CPU ms an image, {seconds:.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
