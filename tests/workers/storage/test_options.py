import logging
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ErrorCode
from schemas.exceptions import StorageError
from schemas.spec import StorageOptions
from tests.s3 import ACCESS_KEY, READER, SECRET_KEY, S3Server
from tests.s3_proxy import Hook
from tests.workers.storage.proxied import OBJECT, SPEC, ProxiedBucket, failure, of_images, refuse
from workers.fetch.fetch import fetch
from workers.storage.options import configure_storage, filesystem_options, options_for
from workers.storage.store import Store


@pytest.fixture(autouse=True)
def _nothing_set() -> Iterator[None]:
    """Every test begins and ends with a process that reaches files as AWS's own tools do."""
    configure_storage({})
    yield
    configure_storage({})


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("s3://photos/a.jpg", "bucket"),
        ("s3a://photos/a.jpg", "bucket"),
        ("s3://photos", "bucket"),
        ("s3://photos/new/a.jpg", "folder"),
        ("s3://photos/new", "folder"),
        ("s3://photos/newer/a.jpg", "bucket"),
        ("s3://photos-2/a.jpg", "everything"),
        ("gs://photos/a.jpg", None),
        ("/photos/a.jpg", None),
    ],
)
def test_the_longest_beginning_of_a_url_counts(url: str, region: str | None) -> None:
    configure_storage(
        {
            "s3://": StorageOptions(region="everything"),
            "s3a://photos": StorageOptions(region="bucket"),
            "s3://photos/new/": StorageOptions(region="folder"),
        }
    )
    assert options_for(url).region == region


def test_each_store_has_its_own_way_to_say_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "the key")
    anybody = StorageOptions(anonymous=True)
    configure_storage(
        {
            "gs://": anybody,
            "s3://": anybody,
            "az://": StorageOptions(options={"account_name": "me", "account_key": "env:AZURE_KEY"}),
        }
    )
    assert filesystem_options("gs://b/a.jpg")["gs"]["token"] == "anon"
    assert filesystem_options("s3://b/a.jpg")["s3"]["anon"] is True
    for scheme in ("az", "abfs"):
        found = filesystem_options(f"{scheme}://b/a.jpg")[scheme]
        assert (found["account_name"], found["account_key"]) == ("me", "the key")
    assert filesystem_options("tar://a.jpg::gcs://b/a.tar")["gcs"]["token"] == "anon"
    assert filesystem_options("/a.jpg") == filesystem_options("https://host/a.jpg") == {}


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOS_ACCESS_KEY_ID", "key")
    monkeypatch.delenv("PHOTOS_SECRET_ACCESS_KEY", raising=False)
    configure_storage({"s3://photos": StorageOptions(credentials_env_prefix="PHOTOS")})
    with pytest.raises(StorageError, match="variable PHOTOS_SECRET_ACCESS_KEY holds credentials; it is not"):
        Store("s3://photos/run")


def test_images_and_files_are_reached_with_the_credentials_of_their_place(
    no_configuration: ProxiedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied = no_configuration
    monkeypatch.setenv("PHOTOS_ACCESS_KEY_ID", READER[0])
    monkeypatch.setenv("PHOTOS_SECRET_ACCESS_KEY", READER[1])
    monkeypatch.setenv("TABLES_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("TABLES_SECRET_ACCESS_KEY", SECRET_KEY)
    here: dict[str, Any] = {"endpoint": proxied.server.endpoint, "region": "eu-west-2"}
    configure_storage(
        {
            "s3://": StorageOptions(**here, credentials_env_prefix="PHOTOS"),
            f"s3://{proxied.bucket}/tables": StorageOptions(**here, credentials_env_prefix="TABLES"),
        }
    )
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT
    Store(f"s3://{proxied.bucket}/tables").write("x", b"1")
    with pytest.raises(StorageError, match=r"cannot write .*/other/x: "):
        Store(f"s3://{proxied.bucket}/other").write("x", b"1")
    signed = [
        value.partition("Credential=")[2].split("/")
        for exchange in proxied.seen
        for name, value in exchange.headers.items()
        if name.lower() == "authorization"
    ]
    assert {(key, region) for key, _, region, *_ in signed} == {
        (READER[0], "eu-west-2"),
        (ACCESS_KEY, "eu-west-2"),
    }


def test_a_profile_and_anybody_are_told_apart_by_place(
    no_configuration: ProxiedBucket, tmp_path: Path
) -> None:
    proxied = no_configuration
    (tmp_path / "credentials").write_text(
        f"[reader]\naws_access_key_id = {READER[0]}\naws_secret_access_key = {READER[1]}\n"
    )
    endpoint = proxied.server.endpoint
    configure_storage(
        {
            f"s3://{proxied.bucket}": StorageOptions(
                endpoint=endpoint, profile="reader", requester_pays=True
            ),
            f"s3://{proxied.bucket}/public": StorageOptions(endpoint=endpoint, anonymous=True),
        }
    )
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT
    assert proxied.gets[-1].headers["x-amz-request-payer"] == "requester"
    assert (
        failure(f"s3://{proxied.bucket}/public/a.jpg").code is ErrorCode.DENIED
    )  # this server knows its users
    assert "authorization" not in proxied.gets[-1].headers


def test_a_store_renews_credentials_that_expired_and_leaves_a_line_in_the_log(
    proxied: ProxiedBucket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="workers.storage")
    configure_storage({"s3://": StorageOptions(endpoint=proxied.server.endpoint)})
    refusals: list[Hook] = []
    proxied.spoil = of_images(lambda exchange: refusals.pop()(exchange) if refusals else None)
    store = Store(f"s3://{proxied.bucket}")
    assert store.read("a.jpg") == OBJECT
    refusals.append(partial(refuse, 400, "ExpiredToken"))
    assert store.read("a.jpg") == OBJECT
    renewed = f"renewed the credentials for {proxied.server.endpoint} (ExpiredToken)"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("INFO", renewed)]
    assert SECRET_KEY not in caplog.text


def test_a_store_that_is_sent_to_another_process_takes_no_credentials_along(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"), READER, strict=True):
        monkeypatch.setenv(f"PHOTOS_{name}", value)
    configure_storage({"s3://": StorageOptions(endpoint=s3.endpoint, credentials_env_prefix="PHOTOS")})
    bucket = s3.new_bucket()
    s3.files().pipe_file(f"{bucket}/run/x", b"1")
    store = Store(f"s3://{bucket}/run")
    assert store.read("x") == b"1"
    sent = pickle.dumps(store)
    assert READER[1].encode() not in sent
    assert pickle.loads(sent).read("x") == b"1"
