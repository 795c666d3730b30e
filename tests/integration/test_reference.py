"""Right labels: the job's tables against the models' own reference results."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
import torchvision
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from schemas.images import Detections
from tests.conftest import SHARED
from tests.integration.jobs_here import run_here, tables
from tests.workers.models.pictures import calibrated, planes, small_photos
from tests.workers.models.sources.test_torchvision_models import (
    own_names,
    reference_detector,
    same_objects,
    saved,
)

pytestmark = pytest.mark.usefixtures("ray_here")

needs_eval = pytest.mark.skipif(
    not (SHARED / "eval").is_dir(), reason="the labelled photos are not beside the project"
)


@pytest.mark.slow
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


@pytest.mark.slow
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
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two copies of small photos of several shapes, so that batches would mix shapes if they could."""
    folder = tmp_path_factory.mktemp("images")
    for n, image in enumerate([*small_photos(), *small_photos()]):
        Image.fromarray(image.pixels).save(folder / f"{n:02d}.png")
    return folder


@pytest.mark.slow
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
    photos = [*small_photos(), *small_photos()]
    weights_enum = torchvision.models.get_model_weights(classifier).DEFAULT
    transform, categories = weights_enum.transforms(), weights_enum.meta["categories"]
    classify = spread_classifier(classifier, torch.stack([transform(planes(image)) for image in photos]))
    spec: dict[str, Any] = {
        "classifier": {"model": classifier, "weights": saved(classify, tmp_path / "c.pth"), "top_k": 3},
        "detector": None,
        "compute": {"batch_size": batch_size},
        "units": {"rows": 7},
    }
    if detector:
        detect = reference_detector(detector, 6)
        own = {"weights": saved(detect, tmp_path / "d.safetensors"), "categories": own_names(detector)}
        spec["detector"] = {"model": detector, "score_threshold": 0.2, **own}
    run_here(manifest=str(images), output=str(tmp_path / "out"), **spec)
    found = tables(tmp_path / "out")

    labels = found["labels"].to_pylist()
    compared = 0
    for row, image in zip(labels, photos, strict=True):
        with torch.inference_mode():
            scores, ids = classify(transform(planes(image))[None]).softmax(1)[0].topk(3)
        assert [top["label_id"] for top in row["topk"]] == ids.tolist()
        assert [top["label"] for top in row["topk"]] == [categories[i] for i in ids.tolist()]
        np.testing.assert_allclose([top["score"] for top in row["topk"]], scores, atol=1e-4, rtol=0)
        if detector:
            with torch.inference_mode():
                answer = detect([planes(image).float() / 255])[0]
            compared += same_objects(detections(found["boxes"], row["manifest_index"]), answer, 0.2)
    assert compared > 50 or not detector


def spread_classifier(name: str, inputs: torch.Tensor) -> Any:
    """A random classifier whose scores differ from photo to photo and from class to class."""
    torch.manual_seed(5)
    module = calibrated(torchvision.models.get_model(name, weights=None), inputs)
    head = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        head.weight.mul_(2 / module(inputs).std())
    return module


def detections(boxes: pa.Table, index: int) -> Detections:
    """The rows of one image in the boxes table as the detector's own value."""
    own = boxes.filter(pc.equal(boxes["manifest_index"], index))
    corners = np.stack([own[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)
    return Detections(corners, own["score"].to_numpy(), own["class_id"].to_numpy())
