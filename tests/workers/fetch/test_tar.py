import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError, ManifestError
from schemas.locations import TarMember
from tests.s3 import S3Server
from tests.workers.archives import SPEC, found_in, shard_of, sizes, tar_bytes, watched
from workers.fetch.locate import locate, read_image, uri_of
from workers.fetch.tar import find_member
from workers.manifest.formats.tar import rows_of_tar

IMAGE = b"not that anybody looks" * 100


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_each_image_of_a_shard_is_a_row_with_its_key_and_the_place_of_its_bytes(
    photos: Path, tmp_path: Path
) -> None:
    files = sorted(photos.glob("*.[pj]*g"))
    shard = shard_of(files)
    rows = list(rows_of_tar(str(write(tmp_path / "00000.tar", shard)), SPEC))
    assert [row["image_id"] for row in rows] == [f"{n:09d}" for n in range(7)]
    assert [row["name"] for row in rows] == [f"{n:09d}{file.suffix}" for n, file in enumerate(files)]
    found = [shard[row["start"] : row["start"] + row["size"]] for row in rows]
    assert found == [file.read_bytes() for file in files]


def test_a_key_is_the_path_up_to_the_first_dot_of_the_files_name(tmp_path: Path) -> None:
    names = ["a.b/one.jpg", "a.b/one.x.json", "two.left.PNG", "two.cls", "./three.webp", "日本/é.jpeg"]
    tar = write(tmp_path / "a.tar", tar_bytes((name, IMAGE) for name in names))
    keys = ["a.b/one", "two", "./three", "日本/é"]
    assert [key for key, _, _ in found_in(tar)] == keys


def test_every_image_of_a_sample_is_a_row_and_so_is_one_that_is_there_twice(tmp_path: Path) -> None:
    names = ["1.left.jpg", "1.right.jpg", "1.json", "2.jpg", "2.jpg"]
    tar = write(tmp_path / "a.tar", tar_bytes((name, IMAGE) for name in names))
    assert found_in(tar) == [
        ("1.left.jpg", "1.left.jpg", None),
        ("1.right.jpg", "1.right.jpg", None),
        ("2", "2.jpg", None),
        ("2", "2.jpg", None),
    ]
    assert len({row["start"] for row in rows_of_tar(str(tar), SPEC)}) == 4


def test_images_whose_names_have_dots_are_told_apart_and_each_uri_leads_to_its_own(tmp_path: Path) -> None:
    names = [
        "v1.0_a.jpg",
        "v1.0_b.jpg",
        "./photo 2.0 (clean).jpg",
        "000.seg.png",
        "000.cls",
        "1.jpg",
        "1.PNG",
    ]
    tar = write(tmp_path / "a.tar", tar_bytes((name, name.encode()) for name in names))
    rows = list(rows_of_tar(str(tar), SPEC))
    assert [row["image_id"] for row in rows] == [
        *("v1.0_a.jpg", "v1.0_b.jpg", "./photo 2", "000", "1.jpg", "1.PNG"),
    ]
    for row in rows:
        uri = uri_of(TarMember(str(tar), row["name"]))
        assert read_image(locate(uri, ""), SPEC) == row["name"].encode()


def test_a_sample_without_an_image_is_a_row_that_will_fail(tmp_path: Path) -> None:
    names = ["1.jpg", "2.json", "2.txt", "3.jpg"]
    tar = write(tmp_path / "a.tar", tar_bytes((name, IMAGE) for name in names))
    assert found_in(tar) == [("1", "1.jpg", None), ("2", "2", "NOT_FOUND"), ("3", "3.jpg", None)]
    (row,) = (row for row in rows_of_tar(str(tar), SPEC) if row.get("code"))
    assert row["why"] == "sample '2' has no image; it has: 2.json, 2.txt"


def test_what_is_in_no_sample_is_no_row(tmp_path: Path) -> None:
    names = ["README", ".hidden.jpg", "set/._1.jpg", "__meta__/2.jpg", "set/3.jpg"]
    tar = write(tmp_path / "a.tar", tar_bytes((name, IMAGE) for name in names))
    with tarfile.open(tar, "a") as archive:
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    assert found_in(tar) == [("set/3", "set/3.jpg", None)]


def test_an_image_that_is_a_link_or_has_holes_is_a_row_that_will_fail(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    with tarfile.open(tar, "w") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "1.jpg"),
            (tarfile.LNKTYPE, "2.jpg"),
            (tarfile.SYMTYPE, "2.txt"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "elsewhere.jpg"
            archive.addfile(link)
        holes = tarfile.TarInfo("3.jpg")
        holes.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1"}
        holes.pax_headers |= {
            "GNU.sparse.map": "512,512",
            "GNU.sparse.size": "1024",
            "GNU.sparse.name": "3.jpg",
        }
        holes.size = 512
        archive.addfile(holes, io.BytesIO(b"x" * 512))
    code = "UNSUPPORTED"
    assert found_in(tar) == [("1", "1.jpg", code), ("2", "2.jpg", code), ("3", "3.jpg", code)]
    reasons = [row["why"] for row in rows_of_tar(str(tar), SPEC)]
    assert "'1.jpg' is a link to 'elsewhere.jpg'" in reasons[0]
    assert "'3.jpg' is stored with holes" in reasons[2]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_large_headers_are_read(tmp_path: Path, form: int) -> None:
    names = [f"{'folder/' * 40}{n}-{'ü' * 90}.jpg" for n in range(3)]
    shard = tar_bytes([(name, f"image {name}".encode()) for name in names], form)
    rows = list(rows_of_tar(str(write(tmp_path / "a.tar", shard)), SPEC))
    assert [row["name"] for row in rows] == names
    found = [shard[row["start"] : row["start"] + row["size"]].decode() for row in rows]
    assert found == [f"image {name}" for name in names]


def test_a_name_that_is_no_utf_8_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    shard = tar_bytes([("a\udcff.jpg", IMAGE)], tarfile.GNU_FORMAT)
    assert found_in(write(tmp_path / "a.tar", shard)) == [("a\ufffd", "a\ufffd.jpg", None)]


def cuts() -> Iterator[int]:
    """Places of a tar file of three samples: borders of its blocks, and beside and between them."""
    for block in range(0, 9000, 512):
        yield from (block + 1, block + 300, block + 511, block + 512)


def test_a_shard_cut_anywhere_loses_no_whole_image_and_says_that_it_is_cut(tmp_path: Path) -> None:
    members = [
        (f"{n}.{ending}", ending.encode() * 300) for n in range(3) for ending in ("jpg", "json", "txt")
    ]
    whole = tar_bytes(members, tarfile.GNU_FORMAT)
    full = list(rows_of_tar(str(write(tmp_path / "whole.tar", whole)), SPEC))
    borders = {0}
    with tarfile.open(tmp_path / "whole.tar") as archive:
        for info in archive:  # where a tar file may end, for all that anybody can see
            end = info.offset_data + info.size
            borders |= set(range(end, end + -end % 512 + 1))
    silent = set()
    for cut in sorted(set(cuts())):
        rows = list(rows_of_tar(str(write(tmp_path / "cut.tar", whole[:cut])), SPEC)) if cut >= 512 else []
        there = [row for row in rows if not row.get("code") and row["start"] + row["size"] <= cut]
        assert there == [row for row in full if row["start"] + row["size"] <= cut], cut
        failed = [row for row in rows if row not in there]
        assert len(failed) <= 1, cut
        if cut >= 512 and not failed:
            silent.add(cut)
        assert all(row.get("code") == "TRUNCATED" or row["start"] + row["size"] > cut for row in failed), cut
    end = max(borders)
    assert {cut for cut in silent if cut < end} <= borders


def test_a_damaged_header_is_told_and_what_is_before_it_counts(tmp_path: Path) -> None:
    shard = bytearray(tar_bytes((f"{n}.jpg", b"x" * 512) for n in range(4)))
    shard[2048:2560] = b"?" * 512
    rows = list(rows_of_tar(str(write(tmp_path / "a.tar", bytes(shard))), SPEC))
    assert [row.get("name") for row in rows] == ["0.jpg", "1.jpg", None]
    assert rows[2]["code"] == "UNSUPPORTED"
    assert rows[2]["why"].startswith("byte 2,048 of the tar file begins neither a header nor its end")


def test_a_shard_without_members_has_no_rows(tmp_path: Path) -> None:
    assert found_in(write(tmp_path / "a.tar", tar_bytes([]))) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.tar is not a tar file: empty file"),
        (b"<html>" + b" " * 600, "a.tar is not a tar file: "),
        (
            gzip.compress(b"x" * 2000, mtime=0),
            r"a.tar is compressed \(it is gzip data\): an image in it cannot",
        ),
        (lzma.compress(b"x" * 2000), r"a.tar is compressed \(it is xz data\)"),
    ],
)
def test_what_is_no_plain_tar_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        found_in(write(tmp_path / "a.tar", data))


def test_a_tar_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"cannot read the headers of .*gone\.tar: FileNotFoundError"):
        found_in(tmp_path / "gone.tar")


@pytest.mark.parametrize(
    ("size", "requests", "share"),
    [(20_000, 13, 1.02), (3_000_000, 23, 0.03)],
    ids=["small images: all is read, in few requests", "large images: nothing but headers is read"],
)
def test_the_headers_of_a_shard_in_a_bucket_are_read_with_few_requests_or_few_bytes(
    s3: S3Server, size: int, requests: int, share: float
) -> None:
    images = 40_000_000 // size if size < 100_000 else 20
    shard = tar_bytes((f"{n:06d}.jpg", bytes(size)) for n in range(images))
    bucket = s3.new_bucket()
    s3.files().pipe_file(f"{bucket}/a.tar", shard)
    with watched(s3) as gets:
        rows = list(rows_of_tar(f"s3://{bucket}/a.tar", SPEC))
    assert len(rows) == images
    assert len(gets) <= requests
    assert sum(sizes(gets)) <= share * len(shard)


def test_a_member_is_looked_up_by_its_name_and_no_further_than_needed(tmp_path: Path) -> None:
    shard = bytearray(tar_bytes((f"{n}.jpg", f"image {n}".encode()) for n in range(4)))
    shard[3072:3584] = b"?" * 512
    tar = str(write(tmp_path / "a.tar", bytes(shard)))
    for number in (2, 0, 1, 2):
        start, size = find_member(tar, f"{number}.jpg", SPEC)
        assert shard[start : start + size] == f"image {number}".encode()
    with pytest.raises(ImageError, match="byte 3,072 of the tar file") as damaged:
        find_member(tar, "3.jpg", SPEC)
    assert damaged.value.code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("tar", "code"), [("good.tar", "NOT_FOUND"), ("none.tar", "UNSUPPORTED"), ("gone.tar", "NOT_FOUND")]
)
def test_a_member_that_is_not_there_is_told_apart(tmp_path: Path, tar: str, code: str) -> None:
    write(tmp_path / "good.tar", tar_bytes([("a.jpg", IMAGE)]))
    write(tmp_path / "none.tar", b"x" * 2000)
    for _ in range(2):
        with pytest.raises(ImageError) as missing:
            find_member(str(tmp_path / tar), "b.jpg", SPEC)
        assert missing.value.code == code


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_samples_are_those_that_webdataset_reads(photos: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    files = sorted(photos.glob("*.[pj]*g"))
    odd = [("a.b/x.JPG", IMAGE), ("a.b/x.cls", b"1"), ("README", b"hello"), ("__meta__/1.jpg", IMAGE)]
    for name, data in (("00000.tar", shard_of(files)), ("00001.tar", tar_bytes(odd))):
        tar = write(tmp_path / name, data)
        theirs = [
            (sample["__key__"], value)
            for sample in webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
            for ending, value in sample.items()
            if ending in ("jpg", "png")
        ]
        ours = [
            (row["image_id"], data[row["start"] : row["start"] + row["size"]])
            for row in rows_of_tar(str(tar), SPEC)
        ]
        assert ours == theirs
