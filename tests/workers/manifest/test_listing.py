import hashlib
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from schemas.ledger import SourceFile
from workers.manifest import listing
from workers.manifest.formats.images import Images
from workers.manifest.listing import ListedFile, by_folder, by_path, list_files, listing_of
from workers.manifest.sources import Source
from workers.storage.filesystem import file_system

IN_ORDER = [
    "a/deep/er.jpg",
    "a/x.jpg",
    "a-1/x.jpg",
    "a-1/y.PNG",
    "a.jpg",
    "b/x.jpg",
    "b.tar",
    "list of.csv",
    "ü.jpg",
]
"""A folder comes before what its name is the beginning of: not so by the bytes of keys."""

NONE = SourceFile(uri="", size=0, version="")

PASSED_OVER = [".hidden.jpg", "_logs/x.jpg", "a/_x.jpg", "a/.git/x.jpg"]


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of files on a disk, and one in a bucket."""
    if request.param == "disk":
        root = str(tmp_path / "in")
    else:
        root = f"s3://{request.getfixturevalue('s3').new_bucket()}/in"
    fs, path = file_system(root)
    for name in (*IN_ORDER, *PASSED_OVER):
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", name.encode())
    return root


def found(url: str) -> list[str]:
    """The URIs that are listed, in their order."""
    listing = listing_of(*list_files(*file_system(url)))
    return [row["uri"] for row in Images().rows(Source(NONE, url, "images", "", listing))]


@pytest.mark.parametrize("run", [1, 2, 3, 1000])
def test_a_folder_is_listed_folder_by_folder_wherever_it_is(
    folder: str, monkeypatch: pytest.MonkeyPatch, run: int
) -> None:
    monkeypatch.setattr(listing, "RUN_FILES", run)
    assert found(folder) == [f"{folder}/{name}" for name in IN_ORDER]
    assert found(f"{folder}/a/") == [f"{folder}/a/deep/er.jpg", f"{folder}/a/x.jpg"]


@pytest.mark.parametrize(
    "pattern",
    [
        "*.jpg",
        "a*",
        "*/x.jpg",
        "?/*.jpg",
        "a/*",
        "**/x.jpg",
        "**",
        "[ab]*/*",
        "*.[tc]*",
        "none*",
        "**/*",
    ],
)
@pytest.mark.parametrize("run", [2, 1000])
def test_a_glob_names_what_fsspec_finds(
    folder: str, monkeypatch: pytest.MonkeyPatch, pattern: str, run: int
) -> None:
    monkeypatch.setattr(listing, "RUN_FILES", run)
    fs, path = file_system(f"{folder}/{pattern}")
    expected = [name for name, entry in fs.glob(path, detail=True).items() if entry["type"] == "file"]
    assert [uri.removeprefix("s3://") for uri in found(f"{folder}/{pattern}")] == sorted(expected)
    assert bool(expected) == (pattern != "none*")


def test_a_file_is_listed_as_itself_and_nothing_as_nothing(folder: str) -> None:
    assert found(f"{folder}/a.jpg") == [f"{folder}/a.jpg"]
    assert found(f"{folder}/none") == found(f"{folder}/none/*.jpg") == []


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_has_no_files() -> None:
    for path in ("", "/in", "/*.jpg", "/**/*.jpg", "/*/*.jpg"):
        assert found(f"s3://there-is-no-such-bucket{path}") == []


def test_a_file_in_a_store_is_known_by_its_etag_and_one_on_a_disk_not_by_its_time(folder: str) -> None:
    fs, path = file_system(folder)
    listed = {file.name: file for file in list_files(fs, path)[0]}
    info = fs.info(f"{path}/a.jpg")
    version = info["ETag"].strip('"') if "ETag" in info else ""
    assert listed[f"{path}/a.jpg"] == ListedFile(f"{path}/a.jpg", 5, version)


def made(count: int) -> list[ListedFile]:
    return [ListedFile(f"b/{n % 7}{'-/'[n % 2]}{n:06}.jpg", n, f"v{n}") for n in range(count)]


@pytest.mark.parametrize("order", [by_folder, by_path])
def test_files_in_any_order_make_the_same_listing(monkeypatch: pytest.MonkeyPatch, order: Any) -> None:
    monkeypatch.setattr(listing, "RUN_FILES", 10)
    files = made(203)
    expected = sorted(files, key=lambda file: order(file.name))
    digest = hashlib.sha256("".join(f"{f.name}\0{f.size}\0{f.version}\n" for f in expected).encode())
    for seed in range(3):
        random.Random(seed).shuffle(files)
        one = listing_of(iter([*files, files[50]]), order)  # one of them is listed twice
        assert (one.count, one.digest) == (203, digest.hexdigest())
        assert list(one) == expected
        assert list(one) == expected


def test_more_files_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "RUN_FILES", 1000)

    def peak(count: int) -> int:
        files = (ListedFile(f"b/folder/{n:09}.jpg", n, f"version-{n}") for n in range(count))
        tracemalloc.start()
        try:
            assert sum(1 for _ in listing_of(files, by_folder)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(20_000) < 1.2 * peak(4000)
