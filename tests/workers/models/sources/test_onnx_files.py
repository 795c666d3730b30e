"""ONNX files as models of a job: what they are taken for, what computes them, what else is no model."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from jobs.prepare.models import describe_model
from schemas.exceptions import ModelError
from schemas.tasks import ClassifierSpec, DetectorSpec, InputSpec, ModelSpec
from tests.workers.models.onnx.exports import KnownBoxes, UnderLayout, export, ultralytics, with_metadata
from tests.workers.models.onnx.test_detector import NAMES, PLACES, SIZE, exported, known, spec_of
from tests.workers.models.onnx.test_scores import two_outputs
from tests.workers.models.pictures import CPU
from workers.models.model import versions
from workers.models.onnx.network import providers
from workers.models.registry import explain, load
from workers.models.runtime import assert_runtime, prepare_module


def test_a_file_is_described_with_the_reason_and_the_line_to_write(tmp_path: Path) -> None:
    metadata = ultralytics(NAMES, imgsz=str(list(SIZE)))
    module = UnderLayout(known(PLACES), "yolov8", SIZE)
    file = export(module, tmp_path / "yolo11n.onnx", SIZE, metadata=metadata)
    found = explain(str(file))
    assert (found.task, found.source, found.spec) == ("detector", "onnx", f"detector: {file}\n")
    facts = found.facts
    assert facts["taken for"] == "a detector, by its metadata: task detect"
    assert facts["layout"] == (
        "yolov8: one output of (1, 7, 126): a box and 3 classes at 126 places, as many as the grids of its "
        "input have"
    )
    assert (facts["input"], facts["classes"], facts["batch"]) == ("64x96", "3: cat, dog, car", "any")
    assert facts["doubled boxes"] == "removed here (nms_iou)"
    assert facts["sha256"] == load(DetectorSpec(model=str(file))).resolved.weights_sha256


def test_what_a_file_does_not_say_is_described_with_lines_that_state_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exported(tmp_path, "yolox", dynamic=False)
    assert describe_model("yolox.onnx", as_json=False)
    printed = capsys.readouterr().out
    assert "does not say layout: yolox.onnx does not say what its output means: it may be yolov5" in printed
    assert re.search(r"does not say layout: .* may be yolov5 \(.*\); yolox \(.*\)$", printed, re.MULTILINE)
    assert "batch:          1 at a time" in printed
    assert not re.search("^(layout|preprocessing|doubled boxes|classes):", printed, re.MULTILINE)
    assert printed.endswith(
        "    detector:\n      model: yolox.onnx\n      layout: yolov5  # or yolox\n"
        "      categories: names.txt  # one name a line\n"
    )
    describe_model("yolox.onnx", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"model", "task", "source", "facts", "spec"}


@pytest.mark.parametrize("name", ["a: b #1.onnx", "'it'.onnx", "yes, no.onnx", "-?.onnx"])
def test_a_path_that_yaml_would_read_otherwise_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    exported(tmp_path, "yolov8").rename(name)
    assert yaml.safe_load(explain(name).spec) == {"detector": {"model": name, "categories": "names.txt"}}
    metadata = ultralytics(NAMES, imgsz=str(list(SIZE)))
    with_metadata(tmp_path / name, metadata)
    assert yaml.safe_load(explain(name).spec) == {"detector": name}


def test_a_file_that_cannot_be_used_is_described_with_the_reason(tmp_path: Path) -> None:
    module = UnderLayout(known(PLACES), "yolov8", SIZE)
    file = export(module, tmp_path / "x.onnx", SIZE, metadata=ultralytics(NAMES[:2]))
    found = explain(str(file))
    assert found.facts["cannot be used"] == (
        "its metadata `names`: found 2 class names, but x.onnx has 3 classes"
    )
    assert found.spec == ""
    assert not describe_model(str(file), as_json=True)


def test_a_file_with_several_outputs_is_described_with_the_command_that_cuts_it(tmp_path: Path) -> None:
    found = explain(str(two_outputs(tmp_path / "two.onnx")))
    assert (found.task, found.spec) == ("classifier", "")
    assert found.facts["taken for"] == (
        "a classifier, by its outputs 'mean' (n, 3, 1, 1) float32, 'logits' (n, 4) float32; if these are "
        "features, it is an embedder"
    )
    assert "two.onnx does not say which output is a classifier's" in found.facts["cannot be used"]
    assert "'does not say input'" not in found.facts


def test_a_built_in_model_is_described_as_it_is_listed() -> None:
    found = explain("nanodet_g")
    assert (found.task, found.spec, found.facts["input"]) == ("detector", "detector: nanodet_g\n", "416x416")
    with pytest.raises(ModelError, match="mine:build: only a job builds it"):
        explain("mine:build")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "models/yolo11n.pt",
            r"yolo11n\.pt is no detector but a file of PyTorch's objects, .*`yolo export model=yolo11n\.pt "
            r"format=onnx`, and name yolo11n\.onnx",
        ),
        (
            "a.safetensors",
            r"a file of weights, .*: name the network, and give the file as `weights: a\.safetensors`",
        ),
        (
            "s3://b/c/x.engine",
            r"x\.engine is no detector but an engine of TensorRT's, .*: name the ONNX file",
        ),
        ("models/what?.pt", r"^what\?\.pt is no detector but a file of PyTorch's objects"),
        ("x.tflite", r"`python -m tf2onnx\.convert --tflite x\.tflite --output x\.onnx`"),
        (
            "nanodet_h",
            r"did you mean nanodet_g\?.*; allowed: .*, an ONNX file, a folder .*, or module:factory",
        ),
    ],
)
def test_a_name_that_is_no_model_says_what_is_possible(model: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(DetectorSpec(model=model))


def test_a_file_that_is_not_there_is_named_with_the_folder_that_was_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = f"^the ONNX file {tmp_path}/nope.onnx cannot be read: No such file or directory$"
    with pytest.raises(ModelError, match=message):
        load(DetectorSpec(model="nope.onnx"))


class Training:
    """An object that only its code can load."""


def written(content: object, file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        if isinstance(content, torch.nn.Module):
            torch.jit.save(torch.jit.script(content), str(file))
        else:
            torch.save(content, file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"a": torch.ones(1)},
            "a file of weights, which is no network: name the network, and give the file as",
        ),
        (
            {"model": Training()},
            "a file of Python's objects, which only executing it can load: export it to ONNX",
        ),
        (torch.nn.Linear(2, 2), "a program of PyTorch's, which would be executed: export it to ONNX"),
    ],
)
@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_a_file_of_torchs_is_told_by_its_content(
    tmp_path: Path, content: object, said: str, ending: str
) -> None:
    file = tmp_path / f"net{ending}"
    written(content, file)
    with pytest.raises(ModelError) as caught:
        load(DetectorSpec(model=str(file)))
    assert str(caught.value).startswith(f"net{ending} is no detector but {said}")
    assert "yolo" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        DetectorSpec(layout="yolov8"),
        DetectorSpec(model="fasterrcnn_resnet50_fpn", layout="yolov8"),
    ],
)
def test_a_layout_that_would_change_nothing_is_refused(spec: ModelSpec) -> None:
    with pytest.raises(ModelError, match=f"layout: found for {spec.model}, which has its own; leave it out"):
        load(spec)


def test_onnx_runtime_computes_it_with_the_actors_threads_whatever_computes_the_others(
    tmp_path: Path,
) -> None:
    loaded = load(spec_of(exported(tmp_path, "yolov8"), "yolov8"))
    torch.set_num_threads(2)
    try:
        module = prepare_module(loaded.model, CPU, torch.float32, "torch")
        assert prepare_module(loaded.model, CPU, torch.bfloat16, "auto") is module
        network = module.network
        assert isinstance(network, torch.nn.Module)
        options = network._session.get_session_options()  # type: ignore[operator]
        assert options.intra_op_num_threads == 2
    finally:
        torch.set_num_threads(1)
    with pytest.raises(
        ModelError, match=r"compute\.runtime is torch, which cannot run yolov8\.onnx: .*Allowed here: "
    ):
        assert_runtime(loaded.model, "torch")
    assert_runtime(loaded.model, "auto")
    assert_runtime(load(DetectorSpec()).model, "torch")


def test_a_gpu_is_used_where_onnxruntime_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert providers(CPU, "0" * 64) == ["CPUExecutionProvider"]
    found = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: found)
    chosen = providers(torch.device("cuda", 1), "0" * 64)
    assert chosen == [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]


def test_the_fingerprint_is_of_the_file_the_layout_and_the_input_wherever_it_lies(tmp_path: Path) -> None:
    file = exported(tmp_path, "yolov8")
    moved = tmp_path / "elsewhere" / "yolov8.onnx"
    moved.parent.mkdir()
    moved.write_bytes(file.read_bytes())
    here, there = (load(spec_of(it, "yolov8")).resolved for it in (file, moved))
    assert here.fingerprint == there.fingerprint
    assert here.identity() == there.identity()
    assert versions("torchvision") in here.code
    other = load(spec_of(file, "yolov8", input=InputSpec(pad=0))).resolved
    assert other.fingerprint != here.fingerprint
    boxes = known(PLACES).boxes.numpy()
    scores = (known(PLACES).scores.numpy() / 2).astype(np.float32)
    export(UnderLayout(KnownBoxes(boxes, scores), "yolov8", SIZE), file, SIZE)
    assert load(spec_of(file, "yolov8")).resolved.fingerprint != here.fingerprint


def test_a_file_of_a_url_is_read_as_weights_are(tmp_path: Path) -> None:
    file = exported(tmp_path, "yolov8")
    here = load(spec_of(file, "yolov8")).resolved
    assert load(spec_of(Path("x"), "yolov8", model=f"file://{file}")).resolved.fingerprint == here.fingerprint


def test_a_classifiers_file_named_as_a_detector_is_told(tmp_path: Path) -> None:
    file = exported(tmp_path, "yolov8")
    with pytest.raises(ModelError, match=r"yolov8\.onnx is no classifier: .*name it under `detector:`"):
        load(
            ClassifierSpec(
                model=str(file), categories=["a"], input=InputSpec(size=64, crop=[64, 96], scale=255)
            )
        )
