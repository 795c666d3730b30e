"""Labels of a job are encoded when it is resolved; what labels its images gets them encoded."""

from pathlib import Path

import pyarrow.compute as pc
import pytest

pytest.importorskip("transformers", reason="needs raylabel[transformers]")
pytest.importorskip("sentencepiece", reason="needs raylabel[transformers]")

from jobs.prepare.check import ThisMachine
from jobs.prepare.resolve import ResolvedJob, resolve
from schemas.exceptions import OutputConflictError
from schemas.spec_file import build_spec
from tests.workers.models.pictures import PHOTOS
from tests.workers.models.transformers.made_texts import make_for_texts
from workers.label.decoder import Decoder
from workers.label.labeller import Labeller
from workers.label.settings import LabelSettings, UnitRequest
from workers.ledger.directory import RunDirectory
from workers.manifest.open import open_manifest
from workers.storage.store import Store

SCENES = ["beach", "forest", "city at night"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    make_for_texts("siglip", root / "siglip")
    return make_for_texts("clip", root / "clip").parent


def job(folder: Path, output: Path, labels: list[str] | str = SCENES) -> ResolvedJob:
    clip = f"{folder}/clip/"
    return resolve(
        build_spec(
            {
                "manifest": str(PHOTOS),
                "output": str(output),
                "classifier": {"model": clip, "labels": ["cat", "rocket"], "prompt": "a photo of {}"},
                "detector": None,
                "embedder": clip,
                "taggers": {"scene": {"model": f"{folder}/siglip/", "labels": labels, "score_threshold": 0}},
            },
            "a test",
        )
    )


def settings_of(resolved: ResolvedJob) -> LabelSettings:
    """What an actor with models gets."""
    store = Store(resolved.spec.output)
    manifest = open_manifest(resolved.spec.manifest, resolved.sources, store, lambda f, a: [f(*x) for x in a])
    run = RunDirectory.first(store, resolved.record(manifest), manifest.carried)
    return resolved.label_settings(manifest, run.current, manifest.rows, 1, ThisMachine(threads=1))


def test_a_worker_gets_labels_encoded_and_needs_no_tokenizer(folder: Path, tmp_path: Path) -> None:
    resolved = job(folder, tmp_path / "run")
    settings = settings_of(resolved)
    assert {name: texts.labels for name, texts in settings.texts.items()} == {
        "classifier": ("cat", "rocket"),
        "taggers.scene": tuple(SCENES),
    }
    hidden = [file for file in folder.glob("*/*") if "token" in file.name or file.suffix == ".model"]
    assert len(hidden) > 3
    for file in hidden:
        file.rename(file.with_name(f"hidden {file.name}"))
    try:
        Decoder(settings)
        labeller = Labeller(settings)
    finally:
        for file in hidden:
            file.with_name(f"hidden {file.name}").rename(file)
    results, _ = labeller(UnitRequest(0, [0, 1]), lambda _: None)
    assert set(results["label"].to_pylist()) <= {"cat", "rocket"}
    tags = [{tag["label"] for tag in tags} for tags in results["rows of tags"].to_pylist()]
    assert tags == [set(SCENES)] * 2
    assert pc.list_value_length(results["rows of embeddings"]).to_pylist() == [1, 1]


def test_a_run_goes_on_with_the_same_labels_alone(folder: Path, tmp_path: Path) -> None:
    from workers.ledger.runs import begin_run

    names = tmp_path / "labels.txt"
    names.write_text("\n".join(SCENES))
    output = tmp_path / "run"
    first = job(folder, output)
    store = Store(str(output))
    manifest = open_manifest(first.spec.manifest, first.sources, store, lambda f, a: [f(*x) for x in a])
    begin_run(store, first.record(manifest))
    job(folder, output, str(names)).assert_same_run(store)
    names.write_text("\n".join(SCENES[:2]))
    with pytest.raises(OutputConflictError, match=r"taggers\.scene"):
        job(folder, output, str(names)).assert_same_run(store)
