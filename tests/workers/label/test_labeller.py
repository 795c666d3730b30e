import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import Stage
from schemas.exceptions import ModelError
from schemas.plan import Pass, Plan
from schemas.spec import ComputeSpec, DecodeSpec, FetchSpec
from schemas.tasks import ClassifierSpec, DetectorSpec
from tests.poison import paint
from tests.workers.label.models import settings_of_models
from workers.label.labeller import Labeller
from workers.label.settings import LabelSettings, UnitRequest
from workers.manifest.convert import write_parquet
from workers.manifest.manifest import Manifest


@pytest.fixture(scope="module")
def settings(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelSettings:
    """The seven demo photos in units of three, both built-in models."""
    folder = tmp_path_factory.mktemp("label")
    rows = [{"uri": str(path), "split": "test"} for path in sorted(photos.glob("*.[pj]*g"))]
    return LabelSettings(
        manifest=Manifest(
            write_parquet(rows, str(folder / "m"), ""), "uri", None, pa.schema([("split", pa.string())])
        ),
        current=Pass(Plan(rows=7, unit_rows=3, shard_units=10)),
        **settings_of_models(ClassifierSpec(), DetectorSpec(), carried=pa.schema([("split", pa.string())])),
        fetch=FetchSpec(),
        storage={},
        decode=DecodeSpec(),
        compute=ComputeSpec(batch_size=2),
        device="cpu",
        runtime="auto",
        threads=1,
        memory_share=1,
        fork_server="",
    )


def ignore_stage(_: Stage) -> None:
    """For those who do not ask how far it is."""


def test_rows_become_results_and_each_stage_is_said(settings: LabelSettings) -> None:
    labeller, stages = Labeller(settings), list[Stage]()
    (last, _), (first, _) = (
        labeller(UnitRequest(2, [6]), stages.append),
        labeller(UnitRequest(0, [0, 1, 2]), ignore_stage),
    )
    results = pa.concat_tables([last, first])
    assert stages == ["decode", "classify", "detect", "decode"]
    assert results.schema == settings.tables.results
    assert results["unit"].to_pylist() == [2, 0, 0, 0]
    assert results["manifest_index"].to_pylist() == [6, 0, 1, 2]
    assert results["label"].to_pylist() == ["missile", "football helmet", "tripod", "tiger cat"]
    assert [[box["class_name"] for box in boxes] for boxes in results["rows of boxes"].to_pylist()] == [
        [],
        ["person"],
        ["person"],
        ["cat", "dog"],
    ]
    assert results["split"].to_pylist() == ["test"] * 4
    assert results["error"].null_count == 4


def test_what_was_spent_is_said_with_the_results(settings: LabelSettings, photos: Path) -> None:
    sizes = [path.stat().st_size for path in sorted(photos.glob("*.[pj]*g"))]
    labeller = Labeller(settings)
    usages = [
        labeller(request, ignore_stage)[1]
        for request in (UnitRequest(0, [0, 1, 2]), UnitRequest(1, [3, 4, 5]))
    ]
    assert [usage.fetched_bytes for usage in usages] == [sum(sizes[:3]), sum(sizes[3:6])]
    for usage in usages:
        assert usage.stage_s.keys() == {Stage.FETCH, Stage.DECODE, Stage.CLASSIFY, Stage.DETECT}
        assert all(seconds > 0 for seconds in usage.stage_s.values())


def test_other_models_than_the_drivers_are_refused(settings: LabelSettings) -> None:
    others = ("efficientnet_lite0-other", "nanodet_g-other")
    with pytest.raises(ModelError, match=r"a worker built .* where the driver resolved .*-other"):
        Labeller(dataclasses.replace(settings, fingerprints=others))


def test_an_image_that_a_model_fails_on_costs_its_own_row_only(
    settings: LabelSettings, tmp_path: Path
) -> None:
    paint(tmp_path)
    names = ("blue", "green", "grey", "yellow", "blue")
    rows = [{"uri": f"{tmp_path}/{name}.png"} for name in names]
    changed = dataclasses.replace(
        settings,
        manifest=Manifest(write_parquet(rows, str(tmp_path / "m"), ""), "uri", None, pa.schema([])),
        **settings_of_models(ClassifierSpec(model="tests.poison:poisoned")),
        compute=ComputeSpec(batch_size=5),
    )
    results = Labeller(changed)(UnitRequest(0, [0, 1, 2, 3, 4]), ignore_stage)[0].to_pylist()
    assert [row["label"] for row in results] == ["blue", None, "other", None, "blue"]
    errors = [row["error"] and (row["error"]["stage"], row["error"]["code"]) for row in results]
    assert errors == [None, ("classify", "MODEL_ERROR"), None, ("classify", "NON_FINITE"), None]
    assert "I do not like green" in results[1]["error"]["message"]
