import io
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from jobs.search.build import make_index
from jobs.serve import photos as module
from jobs.serve import thumbnail
from jobs.serve.thumbnail import Wanted, build_thumbnailer
from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from tests.jobs.exports.made_run import PHOTOS, size_of, write_run
from tests.jobs.serve.conftest import serving
from tests.s3 import S3Server
from tests.s3_proxy import Exchange, forget_clients, proxying
from workers.decode.picture import Limits
from workers.storage.store import Store


def jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def make(file: bytes, width: int, height: int, side: int = 100, pixels: int = 10**6) -> bytes | str:
    return build_thumbnailer(Limits(pixels))(Wanted(0, file, width, height, side), lambda _: None)


@pytest.mark.parametrize(
    ("size", "small"), [((400, 200), (100, 50)), ((50, 40), (50, 40)), ((3000, 2), (100, 1))]
)
def test_a_photo_is_made_small_and_never_large(size: tuple[int, int], small: tuple[int, int]) -> None:
    made = make(jpeg(*size), *size)
    assert isinstance(made, bytes)
    assert Image.open(io.BytesIO(made)).size == small


def test_a_photo_of_another_size_than_labelled_is_not_shown() -> None:
    assert make(jpeg(40, 20), 20, 40) == "the file has changed since it was labelled: it has 40 x 20 pixels"


def test_a_photo_over_the_bounds_of_the_run_is_not_decoded() -> None:
    with pytest.raises(ImageError) as raised:
        make(jpeg(400, 200), 400, 200, pixels=1000)
    assert raised.value.code is ErrorCode.TOO_LARGE


def test_an_image_that_is_gone_changed_or_broken_says_so_and_the_others_are_shown(own_run: str) -> None:
    photos = Path(own_run).parent / "photos"
    (photos / PHOTOS[0]).unlink()
    (photos / PHOTOS[1]).write_bytes(b"something else")
    size = (photos / PHOTOS[2]).stat().st_size
    (photos / PHOTOS[2]).write_bytes(b"\xff\xd8\xff\xe0" + b"x" * (size - 4))
    with serving(own_run) as address, httpx.Client(base_url=address, timeout=60) as client:
        reasons = {
            0: "the image is not there any more",
            1: "the file has changed since it was labelled: its size is another",
            2: "the image cannot be decoded: ",
        }
        for row, reason in reasons.items():
            for _ in range(2):
                answer = client.get(f"/photo/{row}")
                assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store")
                assert answer.headers["content-type"].startswith("text/plain")
                assert answer.text.startswith(reason)
        assert client.get("/photo/3").status_code == 200


def test_a_decoder_that_dies_takes_no_server_down(own_run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The photo's process is killed, which a file may make a decoder do; the next photo gets another one."""
    monkeypatch.setattr(module, "build_thumbnailer", build_dying)
    with serving(own_run) as address, httpx.Client(base_url=address, timeout=60) as client:
        answer = client.get("/photo/0")
        assert (answer.status_code, answer.text) == (
            404,
            "the image cannot be decoded: the process that worked on it died",
        )
        monkeypatch.setattr(module, "build_thumbnailer", thumbnail.build_thumbnailer)
        assert client.get("/photo/1").status_code == 200
        assert client.get("/").status_code == 200


def build_dying(_: Limits) -> object:
    import os

    return lambda *_: os.abort()


def test_photos_of_a_bucket_are_shown_and_a_store_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, silent, ended = f"s3://{s3.new_bucket()}", threading.Event(), threading.Event()
    output = write_run(tmp_path, url=bucket)
    make_index(output)

    def answer_late(_: Exchange) -> None:
        if silent.is_set():
            ended.wait(60)

    with proxying(s3, before=answer_late) as proxied, ExitStack() as stack:
        for name, value in proxied.environment.items():
            monkeypatch.setenv(name, value)
        forget_clients()  # those of earlier tests go past the proxy, as this one's would in later tests
        stack.callback(forget_clients)
        store = Store(f"{bucket}/photos")
        for row in (0, 1):
            store.put(PHOTOS[row], tmp_path / "photos" / PHOTOS[row])
        address = stack.enter_context(serving(output))
        client = stack.enter_context(httpx.Client(base_url=address, timeout=60))
        with Image.open(io.BytesIO(client.get("/photo/1").content)) as photo:
            assert photo.size == size_of(1)
        assert client.get("/photo/2").text == "the image is not there any more"
        silent.set()
        stack.callback(ended.set)
        monkeypatch.setattr(module, "PATIENCE_S", 0.0)
        reasons = [client.get(f"/photo/{row}").text for row in (0, 3, 4, 6, 8)]
        assert reasons[:3] == ["the image could not be read: no answer in 0 s"] * 3
        assert reasons[3:] == ["the image was not tried, as those before it could not be read"] * 2
        assert client.get("/photo/1").status_code == 200
