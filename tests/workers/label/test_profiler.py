import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import Stage
from schemas.locations import NO_URI, Location
from schemas.plan import Pass, Plan
from schemas.prediction import Probed
from schemas.spec import ComputeSpec, DecodeSpec, FetchSpec
from schemas.tasks import ClassifierSpec, DetectorSpec, EmbedderSpec, ModelSpec
from tests.image_server import serving
from tests.poison import paint
from tests.workers.label.models import settings_of_models
from workers.decode.picture import Limits
from workers.label.children import build_profiler
from workers.label.profiler import SteppingReader
from workers.label.settings import LabelSettings
from workers.manifest.manifest import Manifest

NO_ROWS = Pass(Plan(rows=0, unit_rows=1, shard_units=1))


def settings(*models: ModelSpec) -> LabelSettings:
    return LabelSettings(
        manifest=Manifest([], "uri", None, pa.schema([])),
        current=NO_ROWS,
        **settings_of_models(*models),
        fetch=FetchSpec(concurrency=2),
        storage={},
        decode=DecodeSpec(),
        compute=ComputeSpec(),
        device="cpu",
        runtime="torch",
        threads=1,
        memory_share=1,
        fork_server="",
    )


def probed(job: LabelSettings, locations: Sequence[Location]) -> tuple[Probed, list[Stage]]:
    answer, stages = build_profiler(job), list[Stage]()
    assert answer(list(locations), stages.append) is None
    profile = answer(None, stages.append)
    assert profile
    return profile, stages


def test_images_are_timed_step_by_step_after_a_chunk_to_warm_up(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"this is no image")
    files = [tmp_path / "no.jpg", *sorted(photos.glob("*.[pj]*g")), tmp_path / "gone.jpg"]
    profile, stages = probed(settings(ClassifierSpec(), DetectorSpec()), [NO_URI, *map(str, files)])
    assert stages == 3 * ["decode", "classify", "detect"]  # chunks of eight and two, the first one twice
    assert profile.images == 10
    assert profile.failed == {"NOT_AN_IMAGE": 1, "NOT_FOUND": 2}  # each once
    assert profile.example == "list: NOT_FOUND: the manifest's row has no URI"
    assert profile.file_bytes == sum(file.stat().st_size for file in files if file.exists())
    assert list(profile.models) == ["classifier", "detector"]
    parts = (profile.decode_cpu_s, *profile.models.values())
    assert all(seconds > 0 for seconds in (*parts, profile.fetch_s, profile.fetch_cpu_s))
    assert sum(parts) <= profile.work_cpu_s


def test_a_network_that_several_models_have_is_timed_once(photos: Path) -> None:
    job = settings(ClassifierSpec(), DetectorSpec(), EmbedderSpec(model="efficientnet_lite0"))
    profile, stages = probed(job, [str(photos / "china.jpg")])
    assert stages == 2 * ["decode", "classify", "detect"]
    assert list(profile.models) == ["classifier + embedder", "detector"]


def test_what_an_image_waits_for_its_file_is_told(photos: Path) -> None:
    names = [path.name for path in sorted(photos.glob("*.jpg"))]
    with serving(photos) as server:

        def slow(_path: str, _before: int, _port: int) -> int:
            time.sleep(0.05)
            return 200

        server.answer = slow
        profile, _ = probed(settings(DetectorSpec()), [server.url(f"{n}/{names[n % 3]}") for n in range(8)])
        assert sum(server.requests.values()) == 8
    assert profile.failed == {}
    assert profile.fetch_s >= 0.05
    assert list(profile.models) == ["detector"]


def test_what_the_rate_makes_an_image_wait_is_no_part_of_reading_it(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = SteppingReader(FetchSpec(concurrency=1, rate=0.001), Limits(10**8), "cpu", 1, 1)
    monkeypatch.setattr("time.sleep", lambda _: None)  # so a read seems to end before it began
    took = [seconds for _, seconds in reader.fetched([str(photos / "china.jpg")] * 3)]
    assert [round(seconds, -2) for seconds in took] == [0, -1000, -2000]


def test_images_that_a_model_fails_on_count_as_failed(tmp_path: Path) -> None:
    paint(tmp_path)
    locations = [f"{tmp_path}/{name}.png" for name in ("blue", "green", "grey", "yellow", "blue")]
    profile, _ = probed(settings(ClassifierSpec(model="tests.poison:poisoned")), locations)
    assert profile.failed == {"MODEL_ERROR": 1, "NON_FINITE": 1}
    assert "I do not like green" in profile.example
