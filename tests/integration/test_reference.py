"""Right labels: the job's tables against the models' own reference results."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.transforms.functional import pil_to_tensor

from tests.conftest import SHARED
from tests.integration.jobs_here import run_here, tables

pytestmark = pytest.mark.usefixtures("ray_here")

needs_eval = pytest.mark.skipif(
    not (SHARED / "eval").is_dir(), reason="the labelled photos are not beside the project"
)


@needs_eval
def test_the_classifiers_top_1_and_top_5_on_63_imagenet_photos_are_the_reference(tmp_path: Path) -> None:
    folder = SHARED / "eval" / "imagenet63"
    with (folder / "labels.csv").open() as file:
        truth = {row["file"]: int(row["label_id"]) for row in csv.DictReader(file)}
    run_here(manifest=str(folder), output=str(tmp_path), detector=None)
    rows = tables(tmp_path)["labels"].to_pylist()
    expected = [truth[Path(row["uri"]).name] for row in rows]
    top_1 = sum(row["label_id"] == label for row, label in zip(rows, expected, strict=True))
    top_5 = sum(
        label in [t["label_id"] for t in row["topk"]] for row, label in zip(rows, expected, strict=True)
    )
    assert (len(rows), top_1, top_5) == (63, 58, 60)


@needs_eval
def test_the_detectors_average_precision_on_64_coco_photos_is_the_reference(tmp_path: Path) -> None:
    folder = SHARED / "eval" / "coco64"
    detector = {"model": "nanodet_g", "score_threshold": 0.05}
    run_here(manifest=str(folder), output=str(tmp_path), classifier=None, detector=detector)
    truth = COCO(str(folder / "annotations.json"))
    ids = {image["file_name"]: image["id"] for image in truth.dataset["images"]}
    found = [
        {
            "image_id": ids[Path(box["uri"]).name],
            "category_id": box["class_id"] + 1,
            "bbox": [box["x1"], box["y1"], box["x2"] - box["x1"], box["y2"] - box["y1"]],
            "score": box["score"],
        }
        for box in tables(tmp_path)["boxes"].to_pylist()
    ]
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(0.325, abs=0.002)
    assert sum(box["score"] > 0.4 for box in found) == 228


@pytest.fixture(scope="module")
def images(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of several shapes, two of each shape apart, so that batches would mix shapes if they could."""
    folder = tmp_path_factory.mktemp("images")
    for n, path in enumerate(sorted(photos.glob("*.[pj]*g")) * 2):
        image = Image.open(path).convert("RGB")
        side = 200 + 24 * (n % 7)
        resized = image.resize((side, 160 + 16 * (n % 5)))
        resized.save(folder / f"{n:02d}.png")
    return folder


def pixels(folder: Path) -> list[torch.Tensor]:
    """The images as torchvision's transforms take them: uint8 (3, height, width)."""
    return [pil_to_tensor(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def saved(module: torch.nn.Module, path: Path) -> str:
    torch.save(module.state_dict(), path)
    return str(path)


def detector_with_boxes(name: str) -> torch.nn.Module:
    """A torchvision detector of random weights whose scores are spread, so that it finds things."""
    torch.manual_seed(7)
    module = torchvision.models.get_model(name, weights=None, weights_backbone=None).eval()
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            if "cls_score.weight" in path or ("classification_head" in path and path.endswith("1.weight")):
                parameter.mul_(30)
    return module


@pytest.mark.parametrize(
    ("classifier", "detector", "batch_size"),
    [
        ("resnet18", "ssdlite320_mobilenet_v3_large", 4),
        ("mobilenet_v3_small", "fasterrcnn_mobilenet_v3_large_320_fpn", 5),
        ("efficientnet_b0", None, 3),
    ],
)
def test_torchvision_models_answer_as_one_image_at_a_time_whatever_the_batch(
    images: Path, tmp_path: Path, classifier: str, detector: str | None, batch_size: int
) -> None:
    torch.manual_seed(5)
    classify = torchvision.models.get_model(classifier, weights=None).eval()
    detect = detector_with_boxes(detector) if detector else None
    threshold = 0.05
    spec: dict[str, Any] = {
        "classifier": {"model": classifier, "weights": saved(classify, tmp_path / "c.pth"), "top_k": 3},
        "detector": None,
        "compute": {"batch_size": batch_size},
        "units": {"rows": 7},
    }
    if detect and detector:
        weights = saved(detect, tmp_path / "d.pth")
        spec["detector"] = {"model": detector, "weights": weights, "score_threshold": threshold}
    run_here(manifest=str(images), output=str(tmp_path / "out"), **spec)
    found = tables(tmp_path / "out")

    transform = torchvision.models.get_model_weights(classifier).DEFAULT.transforms()
    categories = torchvision.models.get_model_weights(classifier).DEFAULT.meta["categories"]
    labels = found["labels"].to_pylist()
    boxes = found["boxes"].to_pylist()
    compared = 0
    for row, image in zip(labels, pixels(images), strict=True):
        with torch.inference_mode():
            scores, ids = classify(transform(image)[None]).softmax(1)[0].topk(3)
            answer = detect([image / 255])[0] if detect else {}
        assert [top["label_id"] for top in row["topk"]] == ids.tolist()
        assert [top["label"] for top in row["topk"]] == [categories[i] for i in ids.tolist()]
        np.testing.assert_allclose([top["score"] for top in row["topk"]], scores, atol=1e-4)
        if detect:
            kept = answer["scores"] > threshold
            own = [box for box in boxes if box["manifest_index"] == row["manifest_index"]]
            assert [box["class_id"] for box in own] == answer["labels"][kept].tolist()
            np.testing.assert_allclose([box["score"] for box in own], answer["scores"][kept], atol=1e-4)
            corners = [[box["x1"], box["y1"], box["x2"], box["y2"]] for box in own]
            np.testing.assert_allclose(np.reshape(corners, (-1, 4)), answer["boxes"][kept], atol=0.01)
            compared += len(own)
    assert compared > 50 or not detect
