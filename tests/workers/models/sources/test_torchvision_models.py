"""raylabel against torchvision's own code, one image at a time, with random weights under a seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from schemas.exceptions import ModelError
from schemas.images import Classification, Detections
from schemas.tasks import ClassifierSpec, DetectorSpec
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import calibrated, planes, small_photos
from workers.models.registry import load
from workers.models.sources import torchvision_models
from workers.models.weights import WeightsFile

SCORES = 1e-4
PIXELS = 0.01
NAMES = ["ant", "bee", "cow", "dog", "elk"]


def saved(module: Any, path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file(module.state_dict(), path)
    else:
        torch.save(module.state_dict(), path)
    return str(path)


@pytest.fixture(
    params=["resnet18", "mobilenet_v3_small", pytest.param("swin_t", marks=pytest.mark.slow)], scope="module"
)
def classifier(request: pytest.FixtureRequest) -> tuple[str, Any]:
    torch.manual_seed(0)
    module: Any = models.get_model(request.param, weights=None, num_classes=40)
    transforms = models.get_model_weights(request.param).DEFAULT.transforms()
    calibrated(module, torch.stack([transforms(planes(image)) for image in small_photos()]))
    if request.param == "swin_t":  # its random head is nearly zero
        torch.nn.init.normal_(module.head.weight)
    return request.param, module


def test_classifications_are_those_of_torchvisions_own_transforms_and_model(
    tmp_path: Path, classifier: tuple[str, Any]
) -> None:
    name, module = classifier
    images = small_photos()
    spec = ClassifierSpec(
        model=name,
        weights=saved(module, tmp_path / "own.pth"),
        categories=[f"class {i}" for i in range(40)],
        top_k=3,
    )
    loaded = load(spec)
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    with torch.inference_mode():
        expected = [module(transforms(planes(image))[None]).softmax(1)[0].topk(3) for image in images]
    assert len({tuple(best.indices.tolist()) for best in expected}) > 1, "the photos must differ"
    for batch_size in (1, 3):
        found = Alone(loaded, batch_size)(images)
        for result, best in zip(found, expected, strict=True):
            assert isinstance(result, Classification)
            assert result.label_ids.tolist() == best.indices.tolist()
            np.testing.assert_allclose(result.scores, best.values, atol=SCORES, rtol=0)


DETECTORS = {  # how much the head's weights are raised or lowered, so that scores spread between 0 and 1
    "ssdlite320_mobilenet_v3_large": 1.5,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 8.0,
    "retinanet_resnet50_fpn": 32.0,
    "fcos_resnet50_fpn": 4.0,
    "ssd300_vgg16": 0.25,
    "maskrcnn_resnet50_fpn": 2.0,
}
FAST = list(DETECTORS)[:1]
SLOW = list(DETECTORS)[1:]
HEADS = ("cls_score.weight", "cls_logits.weight")


def reference_detector(name: str, classes: int, **settings: Any) -> Any:
    """A random detector whose scores are spread: torchvision's own, with batch norm set by real photos."""
    torch.manual_seed(0)
    module: Any = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes, **settings)
    calibrated(module, [planes(image).float() / 255 for image in small_photos()[:4]])
    with torch.no_grad():
        for key, weight in module.named_parameters():
            if key.endswith(HEADS) or ("classification_head.module_list" in key and weight.dim() > 1):
                weight.mul_(DETECTORS[name])
    return module


def own_names(name: str) -> list[str]:
    """Names for six classes; R-CNN and SSD have background among them, and raylabel adds it."""
    return [*NAMES, "fox"] if name.startswith(("retinanet", "fcos")) else NAMES


def same_objects(found: Any, reference: dict[str, torch.Tensor], threshold: float) -> int:
    """Asserts that a result holds exactly the reference's boxes above a threshold; gives their number.

    Boxes without area are no objects. Boxes of nearly equal scores may stand in another order.
    """
    assert isinstance(found, Detections)
    boxes, scores, labels = (reference[key].numpy() for key in ("boxes", "scores", "labels"))
    kept = (scores > threshold) & (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    assert len(found.scores) == len(scores)
    np.testing.assert_allclose(found.scores, scores, atol=SCORES, rtol=0)
    same = (
        (found.class_ids[:, None] == labels)
        & (np.abs(found.scores[:, None] - scores) < SCORES)
        & (np.abs(found.boxes[:, None] - boxes).max(axis=2, initial=0) < PIXELS)
    )
    assert same.any(axis=0).all()
    assert same.any(axis=1).all()
    return len(scores)


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(x, marks=pytest.mark.slow) for x in SLOW)])
def test_objects_are_those_of_torchvisions_own_transforms_and_model(tmp_path: Path, name: str) -> None:
    images = small_photos() if name in list(DETECTORS)[:2] else small_photos()[:3]
    reference = reference_detector(name, 6)
    own = getattr(reference, "roi_heads", reference)
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    with torch.inference_mode():
        expected = [reference([transforms(planes(image))])[0] for image in images]
    weights = saved(reference, tmp_path / "own.safetensors")
    for threshold, batch_size in ((own.score_thresh, 1), (0.3, 2), (0.3, 16)):
        spec = DetectorSpec(
            model=f"torchvision/{name}",
            weights=weights,
            categories=own_names(name),
            score_threshold=threshold,
        )
        found = Alone(load(spec), batch_size)(images)
        counts = [same_objects(f, e, threshold) for f, e in zip(found, expected, strict=True)]
        classes = {c for f in found if isinstance(f, Detections) for c in f.class_ids.tolist()}
        assert sum(counts) > 10, "there must be boxes to compare"
        assert len(classes) > 1, "of several classes"


def test_settings_of_the_spec_take_the_place_of_the_models_own(tmp_path: Path) -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    images = small_photos()[:3]
    reference = reference_detector(
        name, 6, box_score_thresh=0.01, box_nms_thresh=0.2, box_detections_per_img=150
    )
    weights = saved(reference, tmp_path / "own.pth")
    with torch.inference_mode():
        expected = [reference([planes(image).float() / 255])[0] for image in images]
    spec = DetectorSpec(
        model=name, weights=weights, categories=NAMES, score_threshold=0.01, nms_iou=0.2, max_boxes=150
    )
    for f, e in zip(Alone(load(spec), 4)(images), expected, strict=True):
        assert same_objects(f, e, 0.01) > 100


def test_max_boxes_counts_what_passes_the_class_thresholds(tmp_path: Path) -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    weights = saved(reference_detector(name, 6), tmp_path / "own.pth")
    image = small_photos()[:1]
    spec = DetectorSpec(model=name, weights=weights, categories=NAMES, score_threshold=0.01)
    (everything,) = Alone(load(spec), 1)(image)
    assert isinstance(everything, Detections)
    best = NAMES[everything.class_ids[0] - 1]
    limited = spec.model_copy(update={"class_thresholds": {best: 1.0}, "max_boxes": 5})
    (found,) = Alone(load(limited), 1)(image)
    assert isinstance(found, Detections)
    others = everything.scores[everything.class_ids != everything.class_ids[0]]
    assert found.scores.tolist() == others[:5].tolist()


def test_names_of_ones_own_follow_background_where_the_family_has_it(tmp_path: Path) -> None:
    weights = saved(reference_detector(FAST[0], 6), tmp_path / "own.pth")
    for names in (NAMES, ["__background__", *NAMES]):
        loaded = load(DetectorSpec(model=FAST[0], weights=weights, categories=names))
        assert loaded.model.categories == ("__background__", *NAMES)


def test_names_may_come_from_a_text_file(tmp_path: Path) -> None:
    module = models.resnet18(weights=None, num_classes=40)
    (tmp_path / "names.txt").write_text("\n".join(f"Klasse {i}" for i in range(40)) + "\n", encoding="utf-8")
    loaded = load(
        ClassifierSpec(
            model="resnet18",
            weights=saved(module, tmp_path / "own.pth"),
            categories=str(tmp_path / "names.txt"),
        )
    )
    assert loaded.model.categories[39] == "Klasse 39"


def test_weights_of_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    weights = saved(models.resnet18(weights=None, num_classes=40), tmp_path / "own.pth")
    own = (
        f"the weights file {weights} has 40 classes, and resnet18 1,000 of its own; add `categories:`, a text"
    )
    with pytest.raises(ModelError, match=f"^{own}"):
        load(ClassifierSpec(model="resnet18", weights=weights))
    stated = (
        f"categories: found 2 class names, but the weights file {weights} has 40 classes; name all of them"
    )
    with pytest.raises(ModelError, match=f"^{stated}"):
        load(ClassifierSpec(model="resnet18", weights=weights, categories=["a", "b"]))


@pytest.mark.parametrize(
    ("name", "unnamed"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 1),
        ("ssdlite320_mobilenet_v3_large", 1),
        ("fcos_resnet50_fpn", 0),
    ],
)
def test_the_classes_of_a_detectors_weights_are_counted_without_a_background(
    tmp_path: Path, name: str, unnamed: int
) -> None:
    module = models.get_model(name, weights=None, weights_backbone=None, num_classes=7 + unnamed)
    spec = DetectorSpec(model=name, weights=saved(module, tmp_path / "own.pth"), categories=["cat", "dog"])
    with pytest.raises(ModelError, match=r"categories: found 2 class names, but .*/own\.pth has 7 classes"):
        load(spec)
    with pytest.raises(
        ModelError, match=r"own\.pth has 7 classes, and .* 9[01] of its own; add `categories:`"
    ):
        load(spec.model_copy(update={"categories": None}))


def test_a_background_that_a_training_counted_is_named_where_the_family_has_none(tmp_path: Path) -> None:
    module = models.get_model("retinanet_resnet50_fpn", weights=None, weights_backbone=None, num_classes=3)
    path = saved(module, tmp_path / "own.pth")
    spec = DetectorSpec(model="retinanet_resnet50_fpn", weights=path, categories=["cat", "dog"])
    with pytest.raises(ModelError, match=r"one class more: .* put __background__ first in `categories`"):
        load(spec)


def test_infinite_answers_are_not_mistaken_for_no_objects(tmp_path: Path) -> None:
    reference = reference_detector(FAST[0], 6)
    weights = saved(reference, tmp_path / "own.pth")
    loaded = load(DetectorSpec(model=FAST[0], weights=weights, categories=NAMES))
    with torch.no_grad():  # weights that are none are refused when they are loaded
        loaded.model.module.head.classification_head.module_list[0][1].bias[0] = torch.nan
    (found,) = Alone(loaded, 2)(small_photos()[:1])
    assert not isinstance(found, Detections)
    assert found.code == "NON_FINITE"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's, and no way out."""
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    for exception in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(exception, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_official_weights_that_cannot_be_fetched_say_what_to_do(hub: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load(ClassifierSpec(model="resnet18"))
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(caught.value)
    assert str(hub) in str(caught.value)
    assert "weights: FILE" in str(caught.value)


def test_official_weights_are_taken_from_torchs_cache_and_checked(hub: Path) -> None:
    torch.manual_seed(0)
    module: Any = models.resnet18(weights=None).eval()
    saved(module, hub / "resnet18-f37072fd.pth")
    loaded = load(ClassifierSpec(model="resnet18", weights="IMAGENET1K_V1"))
    assert "IMAGENET1K_V1" in loaded.resolved.weights
    assert torch.equal(loaded.model.module.state_dict()["fc.weight"], module.fc.weight)
    assert loaded.model.categories[281] == "tabby"
    with pytest.raises(ModelError, match="another sha256"):
        load(ClassifierSpec(model="resnet18", sha256="0" * 64))


def test_names_for_official_weights_must_be_as_many_as_their_classes(hub: Path) -> None:
    saved(models.resnet18(weights=None), hub / "resnet18-f37072fd.pth")
    with pytest.raises(ModelError, match="found 5 class names, but resnet18 has 1000 classes"):
        load(ClassifierSpec(model="resnet18", categories=NAMES))


def test_a_name_that_is_no_official_weights_lists_them() -> None:
    with pytest.raises(
        ModelError, match=r"resnet50 has no official weights 'IMAGENET1K_V9', only IMAGENET1K_V1"
    ):
        load(ClassifierSpec(model="resnet50", weights="IMAGENET1K_V9"))


def test_an_official_file_is_known_by_the_hash_in_its_name() -> None:
    first, second = models.ResNet50_Weights.IMAGENET1K_V1, models.ResNet50_Weights.IMAGENET1K_V2
    file = WeightsFile("copy.pth", "0676ba61" + "0" * 56, {})
    assert torchvision_models._is_official(file, first)
    assert not torchvision_models._is_official(file, second)
