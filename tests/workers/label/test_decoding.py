import dataclasses
import shutil
import socket
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from schemas.exceptions import ModelError
from schemas.images import DecodedImage
from schemas.metrics import Usage
from schemas.spec import DecodeSpec
from schemas.tables import DECODED
from schemas.tasks import ClassifierSpec, DetectorSpec, EmbedderSpec, ModelSpec, TaggerSpec
from tests.poison import CRASH_MARK, ENDLESS_MARK, broken_decoder, paint
from tests.workers.decode.test_exif import WHOLE, whole
from tests.workers.label.models import settings_of_models
from tests.workers.label.test_labeller import ignore_stage
from tests.workers.label.test_supervise import settings_of
from workers.decode.decode import decode
from workers.decode.heif import installed
from workers.decode.phash import phash
from workers.label import decoder
from workers.label.actors import DecodeActor
from workers.label.decoder import Decoder, SharedImage, images_of
from workers.label.labeller import Labeller
from workers.label.settings import LabelSettings, UnitRequest
from workers.label.supervise import MAX_ATTEMPTS, DecodeUnits, LabelUnits
from workers.label.transfer import from_shared, to_shared
from workers.models.predictor import ModelInput
from workers.process.shared_buffer import SharedBuffer

UNIT = [
    *("photo.jpg", "missing.png", "cut.jpg", "grey.png"),
    *("green.png", "blue.png", "grey.png", "blue.png"),
]


@pytest.fixture
def settings(tmp_path: Path, photos: Path) -> LabelSettings:
    """Two units: images that are fine, one that is missing, one that is cut, two that stop a decoder."""
    paint(tmp_path)
    photo = (photos / "china.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(photo)
    (tmp_path / "cut.jpg").write_bytes(photo[:5000])
    (tmp_path / "crash.jpg").write_bytes(photo[:2] + CRASH_MARK + photo[2:])
    (tmp_path / "endless.jpg").write_bytes(photo[:2] + ENDLESS_MARK + photo[2:])
    names = [*UNIT, "crash.jpg", "blue.png", "endless.jpg"]
    return settings_of(tmp_path, names, decode=DecodeSpec(timeout_s=0.5))


def without_times(results: pa.Table) -> list[dict[str, object]]:
    """Rows without when they were made."""
    rows = results.drop_columns(["processed_at"]).to_pylist()
    return [{**row, "error": row["error"] and {**row["error"], "failed_at": None}} for row in rows]


def test_images_that_were_decoded_elsewhere_get_the_same_results_and_what_was_spent_is_told(
    settings: LabelSettings, tmp_path: Path
) -> None:
    table = DecodeActor(settings)(pa.table({"units": [[0]]}))
    (decoded,), (usage,) = table["decoded"], table["usage"].to_pylist()
    files = [tmp_path / name for name in UNIT if name != "missing.png"]
    assert Usage.model_validate_json(usage).fetched_bytes == sum(file.stat().st_size for file in files)
    with closing(LabelUnits(settings)) as label:
        results = label(0, decoded=pa.Table.from_struct_array(decoded.values))
        expected = label(0)
    assert without_times(results) == without_times(expected)
    assert [row["label"] for row in without_times(results)] == [
        *("other", None, None, "other"),
        *(None, "blue", "other", "blue"),
    ]


@pytest.mark.parametrize(
    ("further", "kinds"),
    [
        (None, [DecodedImage] + [ModelInput] * 3),
        (EmbedderSpec(model="efficientnet_lite0"), [DecodedImage] + [ModelInput] * 3),
        (DetectorSpec(), [DecodedImage] * 4),
        (TaggerSpec(model="tests.poison:poisoned"), [DecodedImage] * 4),
    ],
)
def test_photos_are_handed_over_as_pixels_or_for_a_single_network_as_its_input_where_that_is_less(
    tmp_path: Path, photos: Path, further: ModelSpec | None, kinds: list[type]
) -> None:
    Image.open(photos / "china.jpg").resize((300, 200)).save(tmp_path / "small.png")
    for photo in sorted(photos.glob("*.jpg"))[:3]:
        shutil.copy(photo, tmp_path)
    names = ["small.png", *(path.name for path in sorted(tmp_path.glob("*.jpg")))]
    models = settings_of_models(ClassifierSpec(), further)
    settings = dataclasses.replace(settings_of(tmp_path, names), **models)
    decode = Decoder(settings)
    decoded, _ = decode(UnitRequest(0, range(4)), ignore_stage)
    images = [image for image in images_of(decoded) if isinstance(image, SharedImage)]
    assert [type(image.image) for image in images] == kinds
    label = Labeller(settings)
    results, usage = label(UnitRequest(0, range(4), decoded=decoded), ignore_stage)
    expected, _ = label(UnitRequest(0, range(4)), ignore_stage)
    assert without_times(results) == without_times(expected)
    assert (usage.fetched_bytes, "decode" in usage.stage_s) == (0, False)


def test_an_image_that_kills_whoever_decodes_it_is_found_and_the_rest_is_decoded(
    settings: LabelSettings,
) -> None:
    with closing(DecodeUnits(settings, broken_decoder)) as decode:
        decoded = decode(1)
    crashed, fine, endless = images_of(to_shared(decoded, SharedBuffer(2**20)))
    assert decoded.schema == DECODED
    assert isinstance(fine, SharedImage)
    assert (str(crashed).split(": ")[:2], crashed.attempts) == (["decode", "WORKER_CRASHED"], MAX_ATTEMPTS)
    assert str(endless) == "decode: TIMEOUT: took more than 0.5 s of processor time; its process was killed"
    with closing(LabelUnits(settings)) as label:
        results = label(1, decoded=decoded)
    assert results["label"].to_pylist() == [None, "blue", None]
    assert "signal SIGABRT" in results["error"].to_pylist()[0]["message"]


def test_pixels_over_the_bound_are_left_to_whoever_labels(
    settings: LabelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "MAX_BYTES", 100)
    decode = Decoder(settings)
    decoded, _ = decode(UnitRequest(0, range(8)), ignore_stage)
    assert list(images_of(decoded))[1:] == [None] * 7
    with closing(LabelUnits(settings)) as label:
        assert without_times(label(0, decoded=from_shared(decoded))) == without_times(label(0))


def test_facts_of_images_that_were_decoded_elsewhere_are_the_same(
    settings: LabelSettings, tmp_path: Path
) -> None:
    tables = dataclasses.replace(settings.tables, facts=("exif", "phash"))
    settings = dataclasses.replace(settings, tables=tables)
    Image.open(tmp_path / "blue.png").convert("RGB").save(tmp_path / "photo.jpg", "JPEG", exif=whole())
    decoded = DecodeActor(settings)(pa.table({"units": [[0]]}))["decoded"][0]
    with closing(LabelUnits(settings)) as label:
        results = label(0, decoded=pa.Table.from_struct_array(decoded.values))
        expected = label(0)
    assert without_times(results) == without_times(expected)
    first, missing, *_ = results.to_pylist()
    assert {name: first[f"fact {name}"] for name in WHOLE} == WHOLE
    assert first["fact phash"] == phash(
        decode((tmp_path / "photo.jpg").read_bytes(), max_pixels=10**6).pixels
    )
    assert (missing["fact phash"], missing["fact taken_at"]) == (None, None)


@pytest.mark.parametrize("maker", [Decoder, Labeller])
@pytest.mark.parametrize("elsewhere", [None, "1.0.0, libheif 1.20.1"])
def test_another_decoder_of_heic_than_the_drivers_is_refused_before_anything_is_labelled(
    settings: LabelSettings, maker: type[Decoder] | type[Labeller], elsewhere: str | None
) -> None:
    driver = f"pillow-heif {elsewhere}" if elsewhere else "nothing"
    with pytest.raises(ModelError) as raised:
        maker(dataclasses.replace(settings, heif=elsewhere))
    assert str(raised.value) == (
        f"{socket.gethostname()} decodes HEIC images with pillow-heif {installed()}, the driver with "
        f"{driver}: install the same on every node and where the job is started "
        "(pip install 'raylabel[heif]'), or on none"
    )
