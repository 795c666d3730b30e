from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.locations import NO_URI, Location, MissingImage, ParquetCell, TarMember
from schemas.spec import FetchSpec
from tests.workers.archives import tar_bytes, write_hf
from workers.fetch.locate import is_local, locate, location_of, read_image, shown_uri, uri_of

SPEC = FetchSpec(attempts=1, throttle_timeout_s=0)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
files = st.sampled_from(["/data/set a/0.tar", "s3://bucket/0.tar", "https://host/x/0.tar"])


@given(names, files)
def test_a_members_uri_leads_back_to_it(name: str, tar: str) -> None:
    member = TarMember(tar, name)
    assert locate(uri_of(member), "/elsewhere") == member


@given(names, st.integers(0, 10**12))
def test_a_values_uri_leads_back_to_it(column: str, row: int) -> None:
    value = ParquetCell("s3://bucket/a.parquet", column, row)
    assert locate(uri_of(value), "/elsewhere") == value


def test_no_credentials_are_in_a_uri() -> None:
    tar = "https://user:secret@host/0.tar?signature=secret"
    assert uri_of(TarMember(tar, "a@b.jpg")) == "tar://a@b.jpg::https://host/0.tar"
    value = ParquetCell("s3://key:secret@bucket/a.parquet", "image", 3)
    assert uri_of(value) == "parquet://image/3::s3://bucket/a.parquet"


@pytest.mark.parametrize(
    "location",
    [
        "/data/ a::b.jpg ",
        "/data/caf\udce9.jpg",
        "file:///data/a%20b.jpg",
        "s3://b/a::b?c#d.jpg",
        "https://h/a b.jpg",
        "data:,short",
        TarMember("/data/0.tar", "a::b.jpg"),
        ParquetCell("s3://b/t.parquet", "a/b", 7),
    ],
)
def test_an_absolute_uri_leads_back_to_its_image(location: Location) -> None:
    uri, is_cut = shown_uri(location)
    assert uri is not None
    assert not is_cut
    expected = "file:///data/caf%E9.jpg" if "caf" in uri else location
    assert location_of(uri) == expected
    assert shown_uri(TarMember("/0.tar", "a.jpg", (512, 9))) == ("tar://a.jpg::/0.tar", False)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://h/a.jpg?signature=secret", "https://h/a.jpg"),
        ("https://me:secret@h/a.jpg", "https://h/a.jpg"),
        ("s3://key:secret@bucket/a.jpg", "s3://bucket/a.jpg"),
        ("data:image/png;base64," + "A" * 1000, "data:image/png;base64," + "A" * 32 + "…"),
        ("zip://a.jpg::https://h/a.zip?secret", "zip://a.jpg::https://h/a.zip"),
        (TarMember("https://h/0.tar?secret", "a.jpg"), "tar://a.jpg::https://h/0.tar"),
        (ParquetCell("https://me:secret@h/t.parquet", "image", 1), "parquet://image/1::https://h/t.parquet"),
    ],
)
def test_a_uri_without_its_secret_is_told_to_lack_something(location: Location, shown: str) -> None:
    assert shown_uri(location) == (shown, True)


def test_a_row_without_an_image_has_no_uri() -> None:
    assert shown_uri(NO_URI) == (None, True)


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("simplecache::a.jpg", "s3://b/in/a.jpg"),
        ("filecache::https://h/a.jpg?x", "https://h/a.jpg?x"),
        ("tar://a.jpg::simplecache::s3://c/0.tar", TarMember("s3://c/0.tar", "a.jpg")),
        ("zip://a.jpg::blockcache::https://h/a.zip", "zip://a.jpg::https://h/a.zip"),
        ("cached::simplecache::/a.jpg", "/a.jpg"),
        ("a::simplecache::b.jpg", "s3://b/in/a::simplecache::b.jpg"),  # a name
    ],
)
def test_a_copy_of_a_file_is_the_file_itself(uri: str, location: Location) -> None:
    assert locate(uri, "s3://b/in") == location


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("a.jpg", "s3://b/in/a.jpg"),
        ("/a::b.jpg", "/a::b.jpg"),
        ("tar://a.jpg::0.tar", TarMember("s3://b/in/0.tar", "a.jpg")),
        ("tar://a.jpg::/0.tar.gz", "tar://a.jpg::/0.tar.gz"),  # is for fsspec
        ("parquet://jpg/7::t.parquet", ParquetCell("s3://b/in/t.parquet", "jpg", 7)),
    ],
)
def test_a_relative_path_is_meant_from_the_base(uri: str, location: Location) -> None:
    assert locate(uri, "s3://b/in") == location


def test_fsspec_opens_a_members_uri_too(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_bytes([("x.jpg", b"no"), ("set/a b.jpg", b"the bytes")]))
    uri = uri_of(TarMember(f"{tmp_path}/0.tar", "set/a b.jpg", (1536, 9)))
    with fsspec.open(uri, "rb") as file:
        assert file.read() == b"the bytes"


def test_the_bytes_are_read_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a file")
    (tmp_path / "0.tar").write_bytes(tar_bytes([("x.jpg", b"no"), ("b.jpg", b"a member")]))
    write_hf(tmp_path / "t.parquet", [b"no", b"a value"])
    locations: list[Location] = [
        f"{tmp_path}/a.jpg",
        TarMember(f"{tmp_path}/0.tar", "b.jpg"),
        TarMember(f"{tmp_path}/0.tar", "b.jpg", (1536, 8)),
        ParquetCell(f"{tmp_path}/t.parquet", "image", 1),
    ]
    images = [read_image(location, SPEC) for location in locations]
    assert images == [b"a file", b"a member", b"a member", b"a value"]


@pytest.mark.parametrize(
    ("span", "code"),
    [
        ((512, 4), None),
        ((512, 0), ErrorCode.EMPTY),
        ((512, 100_000), ErrorCode.TRUNCATED),
        ((99_999, 5), ErrorCode.TRUNCATED),
        ((512, SPEC.max_bytes + 1), ErrorCode.TOO_LARGE),
    ],
)
@pytest.mark.parametrize("place", ["disk", "s3", "memory"])
def test_a_member_that_is_not_whole_has_its_code(
    request: pytest.FixtureRequest, tmp_path: Path, place: str, span: tuple[int, int], code: ErrorCode | None
) -> None:
    data, tar = tar_bytes([("a.jpg", b"fine")]), f"{tmp_path}/0.tar"
    Path(tar).write_bytes(data)
    if place == "s3":
        s3 = request.getfixturevalue("s3")
        tar = f"s3://{s3.new_bucket()}/0.tar"
        s3.files().pipe_file(tar, data)
    if place == "memory":
        tar = f"memory://{tmp_path}/0.tar"
        fsspec.filesystem("memory").pipe_file(tar, data)
    if code is None:
        assert read_image(TarMember(tar, "a.jpg", span), SPEC) == b"fine"
        return
    with pytest.raises(ImageError) as failed:
        read_image(TarMember(tar, "a.jpg", span), SPEC)
    assert (failed.value.stage, failed.value.code) == (Stage.FETCH, code)


def test_a_row_without_an_image_fails_as_it_says() -> None:
    for nowhere in (NO_URI, MissingImage(ErrorCode.UNSUPPORTED, "it is a link")):
        with pytest.raises(ImageError) as failed:
            read_image(nowhere, SPEC)
        error = failed.value
        assert (error.stage, error.code, error.message) == (Stage.LIST, nowhere.code, nowhere.why)


def test_what_takes_no_network_is_local() -> None:
    local: list[Location] = ["/a.jpg", TarMember("/0.tar", "a"), ParquetCell("/t.parquet", "c", 0), NO_URI]
    remote: list[Location] = [
        "s3://b/a.jpg",
        TarMember("s3://b/0.tar", "a"),
        ParquetCell("s3://b/t", "c", 0),
    ]
    assert [is_local(location) for location in (*local, *remote)] == [True] * 4 + [False] * 3


def test_whatever_a_location_makes_a_library_raise_is_an_error_of_its_image(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": [b"a"]}), tmp_path / "x.parquet")
    with pytest.raises(ImageError) as failed:
        read_image(ParquetCell(f"{tmp_path}/x.parquet", "\ud800", 0), SPEC)
    assert (failed.value.stage, failed.value.code) == (Stage.FETCH, ErrorCode.UNSUPPORTED)
    assert failed.value.message.startswith(f"parquet://%3F/0::{tmp_path}/x.parquet: UnicodeEncodeError: ")
