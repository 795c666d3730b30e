from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError, ModelError
from schemas.spec_file import build_spec
from workers.label.embed import PhotoEmbedder
from workers.models.registry import load_all

SPEC = build_spec(
    {
        "manifest": "photos",
        "output": "out",
        "classifier": "efficientnet_lite0",
        "embedder": "efficientnet_lite0",
        "decode": {"max_pixels": 1_000_000},
    },
    "a test",
)


@pytest.fixture(scope="module")
def embedder() -> PhotoEmbedder:
    return PhotoEmbedder(SPEC, load_all(SPEC.models)["embedder"].resolved.fingerprint)


def embedded(embedder: PhotoEmbedder, photo: Path) -> np.ndarray:
    return embedder(str(photo), lambda _: None)


def test_a_photo_gets_the_vector_that_a_run_gives_it_however_it_is_turned(
    embedder: PhotoEmbedder, photos: Path, tmp_path: Path
) -> None:
    photo = photos / "chelsea.png"
    vector = embedded(embedder, photo)
    assert vector.shape == (1280,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    with Image.open(photo) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert np.abs(embedded(embedder, tmp_path / "turned.png") - vector).max() < 1e-4
    assert vector @ embedded(embedder, photos / "coffee.png") < 0.9


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"no image at all", ErrorCode.NOT_AN_IMAGE), (b"", ErrorCode.EMPTY), (None, ErrorCode.NOT_FOUND)],
)
def test_what_is_no_photo_fails_as_in_a_run(
    embedder: PhotoEmbedder, tmp_path: Path, content: bytes | None, code: ErrorCode
) -> None:
    if content is not None:
        (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(ImageError) as failed:
        embedded(embedder, tmp_path / "photo.jpg")
    assert failed.value.code == code


def test_the_bounds_of_the_run_hold(embedder: PhotoEmbedder, tmp_path: Path) -> None:
    Image.new("L", (1001, 1000)).save(tmp_path / "large.png")
    with pytest.raises(ImageError) as failed:
        embedded(embedder, tmp_path / "large.png")
    assert failed.value.code == ErrorCode.TOO_LARGE


def test_another_embedder_than_the_runs_is_refused() -> None:
    with pytest.raises(ModelError, match=r"built here is efficientnet_lite0-\w+, that of the run is other-1"):
        PhotoEmbedder(SPEC, "other-1")
