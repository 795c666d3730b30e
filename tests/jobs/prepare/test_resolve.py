import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pyarrow as pa
import pytest
import torch

from jobs.prepare.begun import begun_spec
from jobs.prepare.resolve import resolve
from schemas.exceptions import ModelError, OutputConflictError
from schemas.spec import JobSpec
from schemas.spec_file import build_spec
from tests.workers.models.onnx.test_scores import two_outputs
from workers.ledger.runs import begin_run
from workers.manifest.convert import write_parquet
from workers.manifest.manifest import Manifest
from workers.models.registry import load
from workers.storage.store import Store

MODELS = """
import os
import tempfile
import time
from pathlib import Path

import torch
from my_helpers import transform
from workers.models.model import ClassifierModel

WEIGHTS = Path(__file__).parent / "hidden.pth"


def plain(weights: str, scale: float = 1.0) -> ClassifierModel:
    head = torch.nn.Linear(3, 2)
    head.load_state_dict(torch.load(WEIGHTS))
    head.bias.data.fill_(scale * Path(weights).read_bytes()[0])
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
    return ClassifierModel(module=module, transform=transform, categories=("a", "b"))


def misbehaving(weights: str) -> ClassifierModel:
    print("\x1b[2J\x1b[31mloading\x1b[0m")
    os.chdir(tempfile.mkdtemp())
    os.rmdir(os.getcwd())
    os.fork()
    return plain(weights)


def leaving() -> None:
    if os.fork():
        os._exit(3)
    time.sleep(60)
"""

HELPERS = "def transform(image):\n    return image / 255\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a model, a weights file, and a manifest; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "my_models.py").write_text(MODELS)
    (tmp_path / "my_helpers.py").write_text(HELPERS)
    (tmp_path / "one.bin").write_bytes(b"\x01")
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "hidden.pth")
    (tmp_path / "images.csv").write_text("uri\nx.png\n")
    yield tmp_path
    for name in ("my_models", "my_helpers"):  # where a test has loaded them in this process
        sys.modules.pop(name, None)


def job(**classifier: Any) -> JobSpec:
    classifier = {"model": "my_models:plain", "weights": os.path.abspath("one.bin"), **classifier}
    return build_spec(
        {
            "manifest": os.path.abspath("images.csv"),
            "output": "out",
            "detector": None,
            "classifier": classifier,
        },
        "a test",
    )


def test_a_run_goes_on_only_with_all_that_its_model_was_made_of(project: Path) -> None:
    store = Store("out")
    files = write_parquet([{"uri": "x.png"}], str(project / "m"), "")
    first = resolve(job())
    begin_run(store, first.record(Manifest(files, "uri", None, pa.schema([]))))

    shutil.copy("one.bin", "two.bin")
    resolve(job(weights=os.path.abspath("two.bin"))).assert_same_run(store)  # the same file at another place
    resolve(begun_spec("out", {"output": "out"})).assert_same_run(store)
    assert resolve(job(), first.files).began_with is None, "the manifest is the one that the run began with"

    def refused(spec: JobSpec) -> list[str]:
        with pytest.raises(OutputConflictError) as caught:
            resolve(spec).assert_same_run(store)
        lines = str(caught.value).splitlines()
        assert lines[0].endswith("holds a run whose rows would differ from this job's:")
        return [re.sub(r"[0-9a-f]{57}\.\.\.", "SHA", line).strip() for line in lines[1:-1]]

    assert refused(job(options={"scale": 2})) == [
        "classifier.parts.module: SHA there, SHA now",
        "classifier.settings.options: nothing there, {'scale': 2} now",
    ]
    Path("one.bin").write_bytes(b"\x02")
    assert refused(job()) == [
        "classifier.parts.module: SHA there, SHA now",
        "classifier.weights_sha256: SHA there, SHA now",
    ]
    shutil.copy("two.bin", "one.bin")
    hidden = Path("hidden.pth").read_bytes()
    torch.save(torch.nn.Linear(3, 2).state_dict(), "hidden.pth")
    assert refused(job()) == ["classifier.parts.module: SHA there, SHA now"]
    Path("hidden.pth").write_bytes(hidden)
    Path("my_helpers.py").write_text(HELPERS.replace("255", "256"))
    assert refused(job()) == ["classifier.parts.source of my_helpers: SHA there, SHA now"]


@pytest.mark.usefixtures("project")
def test_a_model_that_prints_moves_and_forks_is_built_once(capfd: pytest.CaptureFixture[str]) -> None:
    resolved = resolve(job(model="my_models:misbehaving"))
    assert resolved.models["classifier"].categories == ("a", "b")
    assert capfd.readouterr().err == "loading\n"
    with pytest.raises(ModelError, match="the process that built the models died: exit code 3"):
        resolve(job(model="my_models:leaving", weights=None))


@dataclass(frozen=True)
class Here:
    """What an actor computes with."""

    device: str = "cpu"
    threads: int = 1
    memory_share: float = 1


def test_a_process_that_starts_elsewhere_builds_the_same_models(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_outputs(project / "two.onnx")
    model = onnx.load(str(project / "two.onnx"))
    del model.graph.output[0]
    Path("nets").mkdir()
    onnx.save(model, "nets/a.onnx")
    Path("names.txt").write_text("a\nb\nc\nd\n")
    Path("map.yaml").write_text("a: one\n")
    spec = build_spec(
        {
            "manifest": "images.csv",
            "output": "out",
            "detector": None,
            "classifier": {
                "model": "nets/a.onnx",
                "categories": "names.txt",
                "class_map": "map.yaml",
                "input": {"size": 8, "scale": 255},
            },
            "taggers": {"own": {"model": "my_models:plain", "weights": "one.bin"}},
        },
        "a test",
    )
    relative = {name: load(model).resolved for name, model in spec.models.items()}
    resolved = resolve(spec)
    settings = resolved.probe_settings(1, 1, Here())
    monkeypatch.chdir("nets")
    elsewhere = {name: load(model).resolved for name, model in settings.models.items()}
    assert settings.fingerprints == tuple(model.fingerprint for model in elsewhere.values())
    assert settings.fingerprints == tuple(model.fingerprint for model in relative.values())
    assert {name: model.identity() for name, model in elsewhere.items()} == {
        name: model.identity() for name, model in relative.items()
    }
    public = resolved.public_spec()
    assert public["classifier"]["model"] == f"{project}/nets/a.onnx"
    assert public["taggers"]["own"]["weights"] == f"{project}/one.bin"
