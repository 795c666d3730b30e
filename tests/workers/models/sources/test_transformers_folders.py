"""Hugging Face folders against transformers' own pipelines, one image at a time, on the demo photos."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers", reason="needs raylabel[transformers]")

from jobs.prepare.models import describe_model
from schemas.images import DecodedImage
from schemas.spec_file import build_spec
from schemas.tasks import ClassifierSpec, DetectorSpec, EmbedderSpec
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import PHOTOS, ROOT, opened, photos
from tests.workers.models.transformers.made import CLASSIFIERS, DETECTORS, EMBEDDERS, LABELS, make, named
from workers.models.registry import explain, load
from workers.models.transformers.network import quiet_and_offline

SCORE, PIXELS = 1e-4, 0.1
"""What scores and boxes may be off by."""

Pictures = list[DecodedImage]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """Photos of three shapes, wide and high ones, one shape twice."""
    own = photos()
    return [
        *(own[name] for name in ("rocket.jpg", "chelsea.png")),
        *(opened(PHOTOS / name, (180, 290)) for name in ("coffee.png", "flower.jpg")),
    ]


def as_pil(image: DecodedImage) -> Image.Image:
    return Image.fromarray(image.pixels)


def pipeline(task: str, folder: Path) -> Any:
    """transformers' own; in float32 on the CPU."""
    with quiet_and_offline() as transformers:
        return transformers.pipeline(task, model=str(folder), device="cpu", dtype=torch.float32)


def runs(spec: Any) -> list[tuple[str, Alone]]:
    """A folder's model in all ways in which it may run on a CPU."""
    ways: list[tuple[Any, int]] = [("torch", 1), ("torch", 3), ("auto", 3)]
    return [(f"{runtime}, {size}", Alone(load(spec), size, runtime=runtime)) for runtime, size in ways]


def assert_scores(folder: Path, pictures: Pictures, spec: Any) -> None:
    reference = pipeline("image-classification", folder)
    expected = [{x["label"]: x["score"] for x in reference(as_pil(image), top_k=9)} for image in pictures]
    assert (
        np.ptp([[scores[label] for label in LABELS.values()] for scores in expected], axis=0).max()
        > 10 * SCORE
    )
    for way, model in runs(spec):
        for result, scores in zip(model(pictures), expected, strict=True):
            found = dict(zip((LABELS[i] for i in result.label_ids), map(float, result.scores), strict=True))
            assert found == pytest.approx(scores, abs=SCORE), way


def assert_objects(folder: Path, pictures: Pictures, threshold: float) -> list[Alone]:
    reference = pipeline("object-detection", folder)
    reference._get_bounding_box = lambda box: box.tolist()  # it would cut fractions of pixels off
    expected = [
        sorted(reference(as_pil(image), threshold=threshold), key=lambda found: -found["score"])
        for image in pictures
    ]
    assert min(map(len, expected)) > 2
    models = runs(DetectorSpec(model=f"{folder}/", score_threshold=threshold))
    for way, model in models:
        for image, result, objects in zip(pictures, model(pictures), expected, strict=True):
            boxes = np.array([found["box"] for found in objects]).clip(0, [image.width, image.height] * 2)
            shown: Any = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)  # what lies outside is no object
            kept = [found for found, inside in zip(objects, shown, strict=True) if inside]
            assert [LABELS[i] for i in result.class_ids] == [found["label"] for found in kept], way
            np.testing.assert_allclose(
                result.scores, [x["score"] for x in kept], atol=SCORE, rtol=0, err_msg=way
            )
            np.testing.assert_allclose(result.boxes, boxes[shown], atol=PIXELS, rtol=0, err_msg=way)
    return [model for _, model in models]


@pytest.mark.parametrize("name", named(CLASSIFIERS, "resnet", "beit", "siglip", "mobilenet_v2"))
def test_a_classifiers_scores_are_those_of_transformers_whatever_the_batch(
    name: str, pictures: Pictures, tmp_path: Path
) -> None:
    folder = make(CLASSIFIERS[name], tmp_path / "folder")
    spec = ClassifierSpec(model=f"{folder}/", top_k=9)
    assert load(spec).model.categories == tuple(LABELS.values())
    assert_scores(folder, pictures, spec)


@pytest.mark.parametrize("name", named(DETECTORS, "deformable detr", "rt-detr v2"))
def test_a_detectors_boxes_are_those_of_transformers_whatever_the_batch(
    name: str, pictures: Pictures, tmp_path: Path
) -> None:
    folder = make(DETECTORS[name], tmp_path / "folder")
    assert_objects(folder, pictures, threshold=0.3)


def features_of(name: str, folder: Path, has_pooler: bool = True) -> Callable[[Image.Image], Any]:
    """The vector of an image, as transformers' documentation gets it of each family."""
    with quiet_and_offline() as transformers:
        network = getattr(transformers, EMBEDDERS[name][0]).from_pretrained(folder)
        processor = transformers.AutoImageProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def features(image: Image.Image) -> Any:
        inputs = processor(images=image, return_tensors="pt")
        if name in ("clip", "siglip"):
            return network.get_image_features(**inputs).pooler_output[0].numpy()
        output = network(**inputs)
        if name == "clip vision":
            return output.image_embeds[0].numpy()
        return (output.pooler_output.flatten(1) if has_pooler else output.last_hidden_state[:, 0])[0].numpy()

    return features


@pytest.mark.parametrize("name", named(EMBEDDERS, "clip vision", "siglip vision", "convnext"))
def test_an_embedding_is_what_transformers_calls_the_features_of_an_image_whatever_the_batch(
    name: str, pictures: Pictures, tmp_path: Path
) -> None:
    folder = make(EMBEDDERS[name], tmp_path / "folder")
    features = features_of(name, folder)
    expected = np.stack([features(as_pil(image)) for image in pictures])
    assert expected.std(axis=0).max() > 0.01
    for way, model in runs(EmbedderSpec(model=f"{folder}/", normalize=False)):
        found = np.stack(model(pictures))
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4, err_msg=way)


def test_what_the_page_says_to_write_for_a_folder_is_a_model(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    own = page.partition("## Hugging Face folders\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| .+ \| `(.+)` \|$", own, re.MULTILINE)
    folders = {"vit": CLASSIFIERS, "detr": DETECTORS, "clip": EMBEDDERS, "dinov2": EMBEDDERS}
    for name, group in folders.items():
        make(group[name], tmp_path / name)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "detr"), "/models/detr", recursive=True)
    monkeypatch.chdir(tmp_path)
    found = []
    try:
        for line in lines:
            job = {"manifest": "m.csv", "output": "out", "classifier": None, "detector": None}
            written = yaml.safe_load(line.replace("s3://", "memory://"))
            ((name, spec),) = build_spec(job | written, "job").models.items()
            loaded = load(spec)
            result = Alone(loaded, 1, runtime="torch")(pictures[:1])[0]
            found.append((name, loaded.resolved.info.source, type(result).__name__))
    finally:
        memory.rm("/models", recursive=True)
    assert found == [
        *[("classifier", "transformers", "Classification")] * 2,
        ("taggers.style", "transformers", "Classification"),
        *[("detector", "transformers", "Detections")] * 2,
        *[("embedder", "transformers", "ndarray")] * 3,
    ]


def test_a_path_that_yaml_would_read_otherwise_is_quoted(tmp_path: Path) -> None:
    folder = make(CLASSIFIERS["vit"], tmp_path / "a: b #1")
    assert yaml.safe_load(explain(f"{folder}/").spec) == {"classifier": str(folder)}


def test_a_folder_that_cannot_be_loaded_is_explained_with_the_reason(tmp_path: Path) -> None:
    folder = make(CLASSIFIERS["vit"], tmp_path / "vit")
    assert explain(f"{folder}/").spec
    state = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in state.items() if name != "classifier.bias"},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    found = explain(f"{folder}/")
    assert found.spec == ""
    assert found.facts["cannot be used"].endswith("1 tensor missing (classifier.bias)")
    assert not describe_model(f"{folder}/", as_json=True)


def test_a_folder_is_explained(tmp_path: Path) -> None:
    folder = make(CLASSIFIERS["vit, several labels"], tmp_path / "vit")
    found = explain(f"{folder}/")
    assert (found.task, found.source, found.spec) == (
        "classifier",
        "transformers",
        f"classifier: {found.facts['folder']}\n",
    )
    facts = found.facts
    assert facts["sha256"] == load(ClassifierSpec(model=f"{folder}/")).resolved.weights_sha256
    assert facts["taken for"] == "a classifier: config.json has architectures ViTForImageClassification"
    assert facts["classes"] == "5: cat, dog, red car, tree, N/A"
    assert facts["scores"] == "sigmoid: problem_type is multi_label_classification"
    assert facts["input"] == "64x64"
    assert facts["preprocessing"] == (
        "ViTImageProcessor (torchvision) do_normalize: true, do_rescale: true, do_resize: true, image_mean: "
        "[0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5], resample: 'bilinear', rescale_factor: "
        "0.00392156862745098, size: {height: 64, width: 64}"
    )
    assert facts["files"].startswith("config.json, model.safetensors, preprocessor_config.json (")
    assert list(facts)[:4] == ["folder", "files", "sha256", "taken for"]
