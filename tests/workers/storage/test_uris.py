import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.exceptions import StorageError
from workers.storage.filesystem import file_system, local_path
from workers.storage.uris import (
    absolute_uri,
    clean_uri,
    data_of,
    file_beside,
    file_in,
    host_of,
    is_data,
    is_local,
    name_of,
    parent_url,
    resolve_uri,
    split_chain,
)


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("  a b.jpg \t", "/m/a b.jpg"),
        (" /a.jpg ", "/a.jpg"),
        ("C:/photos/a.jpg", "/m/C:/photos/a.jpg"),
        ("a::b.jpg", "/m/a::b.jpg"),
        ("x/http://y", "/m/x/http://y"),
        ("HTTP://Host/A.jpg", "http://Host/A.jpg"),
        ("S3://Bucket/Key", "s3://Bucket/Key"),
        ("FILE:/a.jpg", "file:/a.jpg"),
        ("//host/a.jpg", "//host/a.jpg"),
        ("data:,a", "data:,a"),
        ("simplecache::s3://b/a.jpg", "simplecache::s3://b/a.jpg"),
    ],
)
def test_a_uri_is_resolved_as_people_write_it(uri: str, absolute: str) -> None:
    assert resolve_uri(uri, "/m/") == absolute


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("../a.jpg", "s3://b/x/a.jpg"),
        ("./../c/./a.jpg", "s3://b/x/c/a.jpg"),
        ("../../../../a.jpg", "s3://b/a.jpg"),
        ("a//b.jpg", "s3://b/x/y/a//b.jpg"),
        ("..a/b..jpg", "s3://b/x/y/..a/b..jpg"),
    ],
)
def test_dots_lead_up_from_a_url_as_from_a_folder(uri: str, absolute: str) -> None:
    assert resolve_uri(uri, "s3://b/x/y/") == absolute


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("tar://b.jpg::s3://x/a.tar", ("tar://b.jpg", "s3://x/a.tar")),
        ("tar://a::b.jpg::/x/a.tar", ("tar://a::b.jpg", "/x/a.tar")),
        ("tar://b.jpg::a.tar", ("tar://b.jpg", "a.tar")),
        ("tar://b.jpg::http://[::1]:80/a.tar", ("tar://b.jpg", "http://[::1]:80/a.tar")),
        ("zip://b.jpg::simplecache::s3://x/a.zip", ("zip://b.jpg::simplecache", "s3://x/a.zip")),
        ("simplecache::https://h/a", ("simplecache", "https://h/a")),
        ("http://[::1]/a.jpg", None),
        ("http://h/a::b.jpg", None),
        ("s3://b/a::b.jpg", None),
        ("/a::b.jpg", None),
        ("a::b.jpg", None),
    ],
)
def test_two_colons_make_a_chain_only_behind_what_takes_another_file(
    uri: str, parts: tuple[str, str] | None
) -> None:
    assert split_chain(uri) == parts


@pytest.mark.parametrize(
    ("uri", "clean"),
    [
        ("HTTP://me:secret@h/a.jpg?secret=1", "HTTP://h/a.jpg"),
        ("http://h?secret=/1", "http://h"),
        ("http:/me:secret@h/a.jpg?secret=1", "http:/h/a.jpg"),
        ("//me:secret@h/a.jpg", "//h/a.jpg"),
        ("//h/a.jpg?signature=secret", "//h/a.jpg"),
        ("//data/what?.jpg", "//data/what?.jpg"),
        ("http://[::1]:80/a.jpg", "http://[::1]:80/a.jpg"),
        ("http://[not an address/a.jpg", "http://[not an address/a.jpg"),
        ("simplecache::https://me:secret@h/a?secret", "simplecache::https://h/a"),
        ("file://localhost/a?b#c@d", "file://localhost/a?b#c@d"),
        ("data:image/png;base64," + "A" * 99, f"data:image/png;base64,{'A' * 32}…"),
        ("/caf\udce9/a b.jpg", "file:///caf%E9/a%20b.jpg"),
        ("caf\udce9.jpg", "caf�.jpg"),
        ("s3://b/\ud83d.jpg", "s3://b/�.jpg"),
    ],
)
def test_what_is_shown_of_a_uri_is_text_without_secrets(uri: str, clean: str) -> None:
    assert clean_uri(uri) == clean
    assert clean_uri(clean) == clean


SECRETS = ["user:secret@h", "user:secret/secret@h", "user:se?cret#secret@h", "secret@h"]
BEFORE = [
    " ",
    "\t\n",
    "\u00a0",
    "\ufeff",
    "\u200b",
    '"',
    "<",
    "url=",
    "view-source:",
    "git+",
    "a/b/",
    "/data/",
    "C:\\",
]


@pytest.mark.parametrize(
    "start", ["https://", "HTTPS://", "ftp:/", "https:\\\\", "https:/\\", "https:", "http:////"]
)
def test_no_prefix_hides_a_url_from_being_cleaned(start: str) -> None:
    around = [
        "{}",
        "zip://a.jpg::{}",
        "ZIP://a.jpg::{}",
        "simplecache:: {}",
        "tar://{}::s3://b/a.tar",
        "data:,{}",
    ]
    around += [
        "tar://a.jpg::zip://b.tar::{}",
        "tar://a.jpg::{}::/b.tar",
        "data:{};x,",
        "data:{}",
        "s3://b/k::{}",
    ]
    for before in ["", *BEFORE]:
        for place in around:
            for secret in SECRETS:
                uri = place.format(f"{before}{start}{secret}/x.jpg?sig=secret&secret=1#secret")
                for shown in (clean_uri(uri), clean_uri(resolve_uri(uri, "/m"))):
                    assert "cret" not in shown, (uri, shown)
                assert clean_uri(clean_uri(uri)) == clean_uri(uri)


@pytest.mark.parametrize("start", ["https://", "HTTPS://", "https:\\\\", "https:/\\", "https:"])
@pytest.mark.parametrize("base", ["s3://b/m", "az://c/m", "file:///m", "memory://m", "/m"])
def test_a_web_address_that_is_taken_for_a_name_in_a_store_shows_no_secret(start: str, base: str) -> None:
    for before in ["", *BEFORE]:
        if before.endswith("/"):  # a folder in the bucket may be called like an address: its name is shown
            continue
        for secret in SECRETS:
            uri = f"{before}{start}{secret}/x.jpg?code=secret#secret"
            shown = clean_uri(resolve_uri(uri, base))
            assert "cret" not in shown, (uri, shown)
            assert shown.endswith("h/x.jpg")


@pytest.mark.parametrize("start", ["s3://", "hdfs://", "git+ssh://", "FILE://", "//", "\\\\", "s3:/"])
def test_users_are_cut_from_urls_of_any_kind(start: str) -> None:
    for before in ("", " "):
        for secret in SECRETS[:2]:
            uri = f"{before}{start}{secret}/a@b.jpg"
            assert clean_uri(uri) == f"{before}{start}h/a@b.jpg"
            assert "cret" not in clean_uri(resolve_uri(uri, "s3://b/m"))


@pytest.mark.parametrize(
    "uri",
    [
        " a b.jpg",
        "/data/a@b?c=d#e.jpg",
        "C:/a@b.jpg",
        "C:\\a@b.jpg",
        "photo:1@2x.jpg",
        "/mnt/backup:/a@b.jpg",
        "file:/a@b.jpg",
        "file:///a@b.jpg?c=d",
        "https://h:80/@me/a.jpg",
        "s3://b/https://h/@me/a.jpg?w=1",
        "s3://b/page_https://h_a.jpg?w=1",
        "s3://b/a@b?c#d.jpg",
        "s3://arn:aws:s3:eu-west-1:123:accesspoint/photos/a@b.jpg",
        "tar://me@x?y=1/a.jpg::s3://b/a.tar",
        "data:image/svg+xml,<svg/>",
    ],
)
def test_names_that_are_no_secrets_are_shown_as_they_are(uri: str) -> None:
    assert clean_uri(uri) == uri


@pytest.mark.parametrize(
    "query", ["X-Amz-Signature=secret", "a=b&X-Goog-Credential=secret", "sv=1&sig=secret"]
)
def test_a_signature_is_cut_where_a_question_mark_may_be_a_part_of_the_name(query: str) -> None:
    assert clean_uri(f"s3://b/a.jpg?{query}") == "s3://b/a.jpg"


@given(st.text(st.characters()))
def test_any_text_can_be_shown_as_a_uri(uri: str) -> None:
    clean_uri(uri).encode()
    clean_uri(f"http://{uri}").encode()
    assert resolve_uri(uri, "s3://b/x")


def test_the_content_of_a_data_uri_is_its_bytes() -> None:
    content = bytes(range(256))
    for uri in (
        f"data:image/jpeg;base64,{base64.b64encode(content).decode()}",
        f"DATA:;charset=x;BASE64,{base64.b64encode(content).decode().replace('+', '%2B')}",
        f"data:,{''.join(f'%{byte:02x}' for byte in content)}",
    ):
        assert is_data(uri)
        assert not is_local(uri)
        assert data_of(uri) == content
        assert absolute_uri(uri) == uri
    assert is_local("data:a.jpg")


def test_the_folder_of_a_web_address_is_that_of_its_path() -> None:
    assert parent_url("HTTPS://h/a/m.csv?x=/secret") == "HTTPS://h/a"
    assert parent_url("https://h/a/m.csv#x/y") == "https://h/a"
    assert parent_url("/a?/m.csv") == "/a?"


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("/models/vit/", "/models/vit/a.bin"),
        ("/", "/a.bin"),
        ("vit?", "vit?/a.bin"),
        ("s3://models/vit", "s3://models/vit/a.bin"),
        ("s3://models/what?/", "s3://models/what?/a.bin"),
        ("https://host/vit/?token=a/b", "https://host/vit/a.bin?token=a/b"),
        ("zip://vit/::s3://b/a.zip", "zip://vit/a.bin::s3://b/a.zip"),
        ("zip://::s3://b/a.zip", "zip://a.bin::s3://b/a.zip"),
        ("tar://vit::a.tar", "tar://vit/a.bin::a.tar"),
        (
            "zip://vit::tar://x/b.zip::https://h/c.tar?x=/y",
            "zip://vit/a.bin::tar://x/b.zip::https://h/c.tar?x=/y",
        ),
        ("simplecache::s3://models/vit", "s3://models/vit/a.bin"),
        ("simplecache::zip://vit::s3://b/a.zip", "zip://vit/a.bin::s3://b/a.zip"),
    ],
)
def test_a_file_in_a_folder_has_the_folders_uri_and_so_have_those_beside_it(folder: str, file: str) -> None:
    assert file_in(folder, "a.bin") == file
    assert file_beside(file_in(folder, "b.onnx"), "a.bin") == file
    assert name_of(file) == "a.bin"


def test_a_file_url_is_the_path_that_it_encodes_or_else_the_one_that_is_written(tmp_path: Path) -> None:
    for name in ("a b.jpg", "c%20d.jpg", "100%.jpg"):
        (tmp_path / name).write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"")
    paths = [
        ("a%20b.jpg", "a b.jpg"),
        ("a b.jpg", "a b.jpg"),
        ("c%20d.jpg", "c%20d.jpg"),
        ("c%2520d.jpg", "c%20d.jpg"),
        ("100%.jpg", "100%.jpg"),
        ("caf%E9.jpg", "caf\udce9.jpg"),
        ("gone%20.jpg", "gone .jpg"),
    ]
    for start in ("file:", "file://", "FILE://localhost"):
        for written, name in paths:
            assert local_path(f"{start}{tmp_path}/{written}") == f"{tmp_path}/{name}"
            assert file_system(f"{start}{tmp_path}/{written}")[1] == f"{tmp_path}/{name}"
    assert local_path("/a%20b.jpg") is local_path("s3://b/a%20b.jpg") is None


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file://elsewhere/a.jpg", "'elsewhere' stands where a host does; .* Write file:///"),
        ("s3:/bucket/a.jpg", "a slash is missing. Write s3://"),
        ("http:/host/a.jpg", "a slash is missing. Write http://"),
        ("dbfs:/a.jpg", "on Databricks itself the files are below /dbfs/"),
        ("dbfs:///a.jpg", "on Databricks itself the files are below /dbfs/"),
        ("wasbs://c@a.blob.core.windows.net/x.jpg", "Write az://CONTAINER/PATH"),
        ("nonsense://x/a.jpg", "Protocol not known: nonsense"),
    ],
)
def test_a_url_that_nothing_reads_is_refused_with_what_to_write(uri: str, reason: str) -> None:
    with pytest.raises(StorageError, match=reason):
        file_system(uri)


def test_two_colons_in_a_name_are_the_name(tmp_path: Path) -> None:
    (tmp_path / "a::b").mkdir()
    fs, path = file_system(f"{tmp_path}/a::b")
    assert (fs.isdir(path), path) == (True, f"{tmp_path}/a::b")
    assert file_system("s3://bucket/a::b.csv")[1] == "bucket/a::b.csv"
    assert file_system("HTTP://[::1]:80/a::b.csv")[1] == "http://[::1]:80/a::b.csv"


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("http://[::1]:80/a.jpg", "http://[::1]:80"),
        ("s3://bucket/a::b.jpg", "s3://bucket"),
        ("tar://a.jpg::https://user:secret@h/0.tar", "https://h"),
        ("data:image/png;base64,iVBO", ""),
        ("/data/a::b.jpg", ""),
    ],
)
def test_the_host_of_a_uri_is_that_of_its_file(uri: str, host: str) -> None:
    assert host_of(uri) == host
