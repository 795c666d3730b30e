"""Labels for CLIP, SigLIP, OWL and Grounding DINO, against transformers' own zero-shot pipelines."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers", reason="needs raylabel[transformers]")
pytest.importorskip("sentencepiece", reason="needs raylabel[transformers]")

from schemas.exceptions import ModelError
from schemas.images import DecodedImage
from schemas.spec_file import build_spec
from schemas.tasks import ClassifierSpec, DetectorSpec, EmbedderSpec, TaggerSpec
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import CPU, PHOTOS, ROOT, opened, photos
from tests.workers.models.transformers.made import CLASSIFIERS, EMBEDDERS, make
from tests.workers.models.transformers.made_texts import COMPARED, FINDERS, Folders, made_once, make_for_texts
from workers.models.registry import explain, load, load_all, runners_of
from workers.models.runner import RunnerOptions
from workers.models.transformers.network import quiet_and_offline
from workers.models.zero_shot import TextHead

SCORE, PIXELS = 1e-4, 0.1
"""What scores and boxes may be off by."""

LABELS = ["cat", "red car", "A dog at night", "tree, flower"]
WAYS: list[tuple[Any, int]] = [("torch", 1), ("torch", 3), ("auto", 3)]
"""How a model may run on a CPU: the runtime, and images at once."""

Pictures = list[DecodedImage]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """Photos of three shapes, wide and high ones, one shape twice."""
    own = photos()
    return [
        *(own[name] for name in ("rocket.jpg", "chelsea.png")),
        *(opened(PHOTOS / name, (180, 290)) for name in ("coffee.png", "flower.jpg")),
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders by name, each made once."""
    return made_once(tmp_path_factory.mktemp("folders"), make_for_texts)


@pytest.fixture
def copy(folders: Folders, tmp_path: Path) -> Folders:
    """Folders to change."""
    return lambda name: Path(shutil.copytree(folders(name), tmp_path / "copies" / name))


def pipeline(task: str, folder: Path) -> Any:
    """transformers' own; in float32 on the CPU."""
    with quiet_and_offline() as transformers:
        made = transformers.pipeline(task, model=str(folder), device="cpu", dtype=torch.float32)
    made._get_bounding_box = lambda box: box.tolist()  # it would cut fractions of pixels off
    return made


def as_pil(image: DecodedImage) -> Image.Image:
    return Image.fromarray(image.pixels)


def scores(labels: list[str], result: Any) -> dict[str, float]:
    return dict(zip((labels[i] for i in result.label_ids), map(float, result.scores), strict=True))


@pytest.mark.parametrize("prompt", [None, "a photo of {}"])
@pytest.mark.parametrize("name", COMPARED)
def test_scores_of_labels_are_those_of_transformers_pipeline_whatever_the_batch(
    name: str, prompt: str | None, folders: Folders, pictures: Pictures
) -> None:
    folder = folders(name)
    reference = pipeline("zero-shot-image-classification", folder)
    template = {} if prompt is None else {"hypothesis_template": prompt}
    expected = [
        {x["label"]: x["score"] for x in reference(as_pil(image), candidate_labels=LABELS, **template)}
        for image in pictures
    ]
    spread = np.ptp([[one[label] for label in LABELS] for one in expected], axis=0).max()
    assert spread > 30 * SCORE
    spec = ClassifierSpec(model=f"{folder}/", labels=LABELS, prompt=prompt, top_k=9)
    for runtime, size in WAYS:
        loaded = load(spec)
        assert loaded.model.score_type == ("softmax" if "clip" in name else "sigmoid")
        for result, one in zip(Alone(loaded, size, runtime=runtime)(pictures), expected, strict=True):
            assert scores(LABELS, result) == pytest.approx(one, abs=SCORE), (runtime, size)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_tags_are_the_labels_above_the_threshold(name: str, folders: Folders, pictures: Pictures) -> None:
    folder = folders(name)
    reference = pipeline("zero-shot-image-classification", folder)
    expected = [
        {x["label"]: x["score"] for x in reference(as_pil(image), candidate_labels=LABELS)}
        for image in pictures
    ]
    threshold = float(np.median([list(one.values()) for one in expected])) + 1e-3
    spec = TaggerSpec(model=f"{folder}/", labels=LABELS, score_threshold=threshold)
    found = [scores(LABELS, result) for result in Alone(load(spec), 2)(pictures)]
    kept = [{label: score for label, score in one.items() if score > threshold} for one in expected]
    assert found == [pytest.approx(one, abs=SCORE) for one in kept]
    assert any(kept)


def test_of_several_prompts_the_mean_of_what_is_encoded_counts(folders: Folders, pictures: Pictures) -> None:
    folder, templates = folders("clip"), ["a photo of {}", "this is {}."]
    with quiet_and_offline() as transformers:
        network = transformers.CLIPModel.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
    rows = []
    with torch.inference_mode():
        for label in LABELS:
            tokens = tokenizer([t.format(label) for t in templates], padding=True, return_tensors="pt")
            vectors = network.get_text_features(**tokens).pooler_output
            mean = (vectors / vectors.norm(dim=1, keepdim=True)).mean(dim=0)
            rows.append(mean / mean.norm())
        inputs = torch.cat([processor(as_pil(image), return_tensors="pt").pixel_values for image in pictures])
        images = network.get_image_features(inputs).pooler_output
        images = images / images.norm(dim=1, keepdim=True)
        expected = (images @ torch.stack(rows).T * network.logit_scale.exp()).softmax(dim=1).numpy()
    spec = ClassifierSpec(model=f"{folder}/", labels=LABELS, prompt=templates, top_k=9)
    found = np.zeros_like(expected)
    for row, result in zip(found, Alone(load(spec), 4)(pictures), strict=True):
        row[result.label_ids] = result.scores
    np.testing.assert_allclose(found, expected, atol=SCORE)
    alone = load(spec.model_copy(update={"prompt": templates[0]}))
    assert np.abs(Alone(alone, 1)(pictures)[0].scores - np.sort(expected[0])[::-1]).max() > SCORE


@pytest.mark.parametrize("name", FINDERS)
def test_boxes_of_labels_are_those_of_transformers_pipeline_whatever_the_batch(
    name: str, folders: Folders, pictures: Pictures
) -> None:
    folder, threshold = folders(name), 0.02
    reference = pipeline("zero-shot-object-detection", folder)
    expected = [
        sorted(
            reference(as_pil(image), candidate_labels=LABELS, threshold=threshold),
            key=lambda found: -found["score"],
        )
        for image in pictures
    ]
    assert min(map(len, expected)) > 2
    assert len({found["label"] for objects in expected for found in objects}) > 1
    spec = DetectorSpec(model=f"{folder}/", labels=LABELS, score_threshold=threshold)
    for runtime, size in WAYS:
        model = Alone(load(spec), size, runtime=runtime)
        for image, result, objects in zip(pictures, model(pictures), expected, strict=True):
            boxes = np.array([found["box"] for found in objects]).clip(0, [image.width, image.height] * 2)
            inside = ((boxes[:, 2:] - boxes[:, :2]) > 2 * PIXELS).all(axis=1)
            assert inside.sum() > 2
            own = {"scores": result.scores, "boxes": result.boxes, "labels": result.class_ids}
            for found, box in zip(
                [x for x, there in zip(objects, inside, strict=True) if there], boxes[inside], strict=True
            ):
                alike = (own["labels"] == LABELS.index(found["label"])) & (
                    np.abs(own["scores"] - found["score"]) < SCORE
                )
                assert (np.abs(own["boxes"][alike] - box).max(axis=1) < PIXELS).any(), (runtime, size, found)
            assert inside.sum() <= len(result.scores) <= len(objects)


def test_scores_of_mm_grounding_dino_are_those_of_transformers_pipeline(
    folders: Folders, pictures: Pictures
) -> None:
    folder, threshold = folders("mm grounding dino"), 0.1
    reference = pipeline("zero-shot-object-detection", folder)
    spec = DetectorSpec(model=f"{folder}/", labels=LABELS, score_threshold=threshold)
    for image, result in zip(pictures, Alone(load(spec), 2)(pictures), strict=True):
        objects = reference(as_pil(image), candidate_labels=LABELS, threshold=threshold)
        expected = {label: [x["score"] for x in objects if x["label"] == label] for label in LABELS}
        assert 40 < len(result.scores) <= len(objects)  # what lies outside is no object
        for number, score in zip(result.class_ids, result.scores, strict=True):
            assert min(abs(score - one) for one in expected[LABELS[number]]) < SCORE


def test_doubled_boxes_of_a_label_stay_unless_their_overlap_is_bounded(
    folders: Folders, pictures: Pictures
) -> None:
    spec = DetectorSpec(model=f"{folders('owlv2')}/", labels=LABELS[:2], score_threshold=0.1)
    every, fewer = (
        Alone(load(spec.model_copy(update={"nms_iou": iou})), 1)(pictures[:1])[0] for iou in (None, 0.3)
    )
    assert 0 < len(fewer.scores) < len(every.scores)
    from torchvision.ops import batched_nms

    # boxes are clipped to the image after they are suppressed: few differ by that
    tensors = (torch.from_numpy(values) for values in (every.boxes, every.scores, every.class_ids))
    assert abs(len(batched_nms(*tensors, 0.3)) - len(fewer.scores)) <= 3


@pytest.mark.parametrize("name", ["clip", "owlv2", "grounding dino"])
def test_labels_are_encoded_once_and_workers_hold_the_image_half_only(
    name: str, copy: Folders, pictures: Pictures
) -> None:
    folder = copy(name)
    spec: Any = (ClassifierSpec if name in COMPARED else DetectorSpec)(model=f"{folder}/", labels=LABELS)
    first = load(spec)
    assert first.resolved.texts is not None
    assert first.resolved.texts.labels == tuple(LABELS)
    for file in folder.glob("*token*"):
        file.unlink()
    worker = load(spec, first.resolved.texts)
    assert worker.resolved.fingerprint == first.resolved.fingerprint
    parts = {key for key, _ in worker.model.module.named_parameters()}
    assert parts
    assert not [key for key in parts if re.search(r"text_(model|backbone)", key)]
    one, other = (Alone(model, 1)(pictures[:1])[0].scores for model in (first, worker))
    np.testing.assert_array_equal(one, other)


def test_encoded_labels_are_not_written_into_the_record(folders: Folders) -> None:
    resolved = load(ClassifierSpec(model=f"{folders('clip')}/", labels=LABELS)).resolved
    written = json.loads(resolved.model_dump_json())
    assert "texts" not in written
    assert written["categories"] == LABELS
    assert written["settings"]["prompt"] == ["This is a photo of {}."]
    assert type(resolved)(**written).fingerprint == resolved.fingerprint


def test_an_embedder_and_models_with_other_labels_share_one_network(
    folders: Folders, pictures: Pictures
) -> None:
    model = f"{folders('clip')}/"
    specs = {
        "embedder": EmbedderSpec(model=model),
        "classifier": ClassifierSpec(model=model, labels=LABELS),
        "taggers.animals": TaggerSpec(model=model, labels=["cat", "dog"], prompt="{}"),
    }
    loaded = load_all(specs)
    (runner,) = runners_of(loaded, RunnerOptions(CPU, 2, "auto", "auto"))
    shared: list[Any] = list(runner(pictures))
    for place, name in enumerate(predictor.name for predictor in runner.predictors):
        alone = Alone(load(specs[name]), 2)(pictures)
        for together, result in zip(shared, alone, strict=True):
            if name == "embedder":
                np.testing.assert_allclose(together[place], result, atol=1e-6)
            else:
                assert together[place].label_ids.tolist() == result.label_ids.tolist()
                np.testing.assert_allclose(together[place].scores, result.scores, atol=1e-5)
    assert [predictor.name for predictor in runner.predictors] == [*specs]


def test_what_decides_scores_is_in_the_fingerprint_and_nothing_else(copy: Folders, tmp_path: Path) -> None:
    folder = copy("clip")
    names = tmp_path / "labels.txt"
    names.write_text("\n".join(LABELS) + "\n")

    def fingerprint(**changes: Any) -> str:
        return load(
            ClassifierSpec(**{"model": f"{folder}/", "labels": LABELS, **changes})
        ).resolved.fingerprint

    own = fingerprint()
    assert fingerprint(labels=str(names)) == own
    others = [
        fingerprint(labels=LABELS[::-1]),
        fingerprint(labels=[*LABELS, "boat"]),
        fingerprint(prompt="a photo of {}"),
        fingerprint(prompt=["a photo of {}", "{}"]),
    ]
    embedder = load(EmbedderSpec(model=f"{folder}/")).resolved
    (folder / "tokenizer_config.json").write_text((folder / "tokenizer_config.json").read_text() + "\n")
    others.append(fingerprint())
    assert load(EmbedderSpec(model=f"{folder}/")).resolved.fingerprint == embedder.fingerprint
    tensors = load_file(folder / "model.safetensors")
    tensors["text_projection.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    others.append(fingerprint())
    assert len({own, *others}) == 1 + len(others)


def test_logits_are_computed_in_float32_whatever_the_network_is() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(5, 64, generator=generator), dim=1)
    features = torch.randn(3, 64, generator=generator).bfloat16()
    head = TextHead(texts, 100.0, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(features)
    exact = torch.nn.functional.normalize(features.double(), dim=1) @ texts.double().T * 100 + 0.5
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=1e-4, rtol=0)


def test_labels_may_be_merged_under_other_names(folders: Folders, tmp_path: Path, pictures: Pictures) -> None:
    (tmp_path / "names.yaml").write_text("cat: animal\nA dog at night: animal\n")
    spec = ClassifierSpec(model=f"{folders('clip')}/", labels=LABELS, top_k=9)
    apart = scores(LABELS, Alone(load(spec), 1)(pictures[:1])[0])
    folded = load(spec.model_copy(update={"class_map": str(tmp_path / "names.yaml")}))
    (result,) = Alone(folded, 1)(pictures[:1])
    found = {
        folded.resolved.known_as[i]: float(s) for i, s in zip(result.label_ids, result.scores, strict=True)
    }
    assert found["animal"] == pytest.approx(apart["cat"] + apart["A dog at night"], abs=1e-5)


def refusal(spec: Any) -> str:
    with pytest.raises(ModelError) as refused:
        load(spec)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], "labels: found no class name for {model}; expected a list of names, `labels: [cat, red car]`"),
        (["cat", " "], "labels: name 2 is blank; give every class"),
        (["cat", "dog", "cat"], "labels: names 1 and 3 are both 'cat'; tell them apart"),
        (
            "cat, dog",
            "/cat, dog cannot be read: No such file or directory; names themselves are a list: "
            "`labels: [cat, red car]`",
        ),
        (["cat", "\ud800"], "labels: name 2, '\\ud800', has half of a character (a surrogate)"),
        (
            ["a " * 90],
            " has 104 tokens, but the text half of {folder} takes at most 77; shorten it",
        ),
    ],
)
def test_labels_that_cannot_be_looked_for_are_refused_in_a_sentence(
    labels: Any, said: str, folders: Folders
) -> None:
    folder = folders("clip")
    found = refusal(TaggerSpec(model=f"{folder}/", labels=labels))
    assert said.format(model=f"{folder}/", folder=folder) in found


def test_a_folder_without_its_tokenizer_says_what_is_missing(copy: Folders) -> None:
    folder = copy("clip")
    (folder / "tokenizer.json").unlink()
    assert refusal(TaggerSpec(model=f"{folder}/", labels=LABELS)).startswith(
        f"there is no tokenizer in {folder} (tokenizer.json, vocab.json, vocab.txt, spiece.model or "
        "tokenizer.model)"
    )
    (folder / "tokenizer.json").write_text("{}")
    assert refusal(TaggerSpec(model=f"{folder}/", labels=LABELS)).startswith(
        f"the tokenizer of {folder} (tokenizer.json, tokenizer_config.json) cannot be used: "
    )
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": "x.Y"}}))
    assert "tokenizer_config.json of " in (found := refusal(TaggerSpec(model=f"{folder}/", labels=LABELS)))
    assert " has auto_map: the model is a program of its own" in found


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        (
            "clip",
            {"vision_config": {"image_size": 48}},
            "CLIPModel gives no vector for an image of 64x64 pixels, which the folder's image processor "
            "makes: ValueError: Input image size (64*64) doesn't match model (48*48).",
        ),
        (
            "siglip",
            {"vision_config": {"vision_use_head": False}},
            "SiglipModel gives no vector for an image of 64x64 pixels, which the folder's image processor ",
        ),
        (
            "siglip",
            {"text_config": {"projection_size": 16}},
            "the half for images gives 32 numbers and that for texts 16; allowed: the two halves of one ",
        ),
    ],
)
def test_a_folder_whose_halves_do_not_fit_is_refused_in_a_sentence(
    name: str, settings: dict[str, dict[str, Any]], said: str, tmp_path: Path
) -> None:
    own = COMPARED[name][1]
    changed = {half: {**own[half], **values} for half, values in settings.items()}
    folder = make_for_texts(name, tmp_path / "folder", **changed)
    assert refusal(TaggerSpec(model=f"{folder}/", labels=LABELS)).startswith(said)


@pytest.mark.parametrize(
    ("name", "tensor", "value", "said"),
    [
        ("clip", "text_projection.weight", np.nan, "the text half of {} makes no vector of 'This is a photo"),
        (
            *("grounding dino", "model.text_backbone.embeddings.word_embeddings.weight", np.nan),
            "the text half of {} makes no vector of 'cat', but NaN or infinite values; ",
        ),
        ("clip", "logit_scale", 100, "logit_scale of CLIPModel is 100, which makes no score; "),
    ],
)
def test_weights_that_make_no_score_are_refused_before_an_image_is_labelled(
    name: str, tensor: str, value: float, said: str, copy: Folders
) -> None:
    folder = copy(name)
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor].fill_(value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    spec: Any = (ClassifierSpec if name in COMPARED else DetectorSpec)(model=f"{folder}/", labels=LABELS)
    assert refusal(spec).startswith(said.format(folder))


def test_labels_for_a_model_with_classes_of_its_own_are_refused(tmp_path: Path) -> None:
    vit = make(CLASSIFIERS["vit"], tmp_path / "vit")
    vision = make(EMBEDDERS["clip vision"], tmp_path / "vision")
    allowed = "which has classes of its own; allowed: for a folder of CLIP, SigLIP, OWLv2 or Grounding DINO"
    assert refusal(TaggerSpec(model=f"{vit}/", labels=LABELS)).startswith(
        f"labels: found for {vit} (ViTForImageClassification), {allowed}"
    )
    assert allowed in refusal(TaggerSpec(model=f"{vision}/", labels=LABELS))
    assert refusal(ClassifierSpec(labels=LABELS)).startswith(
        f"labels: found for efficientnet_lite0, {allowed}"
    )
    assert refusal(DetectorSpec(labels=LABELS)).startswith(f"labels: found for nanodet_g, {allowed}")


def test_a_model_for_texts_without_labels_says_that_they_are_missing(folders: Folders) -> None:
    clip, owl = folders("clip"), folders("owlv2")
    assert refusal(TaggerSpec(model=f"{clip}/")) == (
        f"{clip} is an embedder (CLIPModel), not a tagger; name it under `embedder:` in the job spec, or add "
        "`labels:`, the texts that a tagger is to tell apart"
    )
    assert refusal(DetectorSpec(model=f"{owl}/")) == (
        f"{owl} is a detector of what texts say (Owlv2ForObjectDetection); add `labels:`, the classes that "
        "it is to find, such as `labels: [cat, red car]`"
    )
    assert "is a detector (Owlv2ForObjectDetection), not a tagger" in refusal(
        TaggerSpec(model=f"{owl}/", labels=LABELS)
    )
    assert "is an embedder (CLIPModel), not a detector" in refusal(
        DetectorSpec(model=f"{clip}/", labels=LABELS)
    )


def test_what_may_not_be_as_intended_is_told(folders: Folders) -> None:
    clip, dino = folders("clip"), folders("grounding dino")

    def notes(spec: Any) -> tuple[str, ...]:
        return load(spec).resolved.notes

    assert notes(ClassifierSpec(model=f"{clip}/", labels=["cat"])) == (
        "labels: 'cat' is the only one, so that its score is always 1",
    )
    (note,) = notes(DetectorSpec(model=f"{dino}/", labels=["red car"]))
    assert note.endswith("takes the words of 'red car' one by one without it; `prompt: \"{}.\"` adds it")
    assert notes(DetectorSpec(model=f"{dino}/", labels=["red car"], prompt="{}.")) == ()
    assert notes(ClassifierSpec(model=f"{clip}/", labels=["Cat", "dog", "cat"], prompt=["a {}", "{}"])) == (
        "labels: 'Cat' and 'cat' are the same to the model, and so are their scores; leave one out, or give "
        "both one name with `class_map`",
    )
    (note,) = notes(DetectorSpec(model=f"{dino}/", labels=["cat", "Cat"], prompt="{}."))
    assert note.startswith("labels: 'cat' and 'Cat' are the same to the model, and so are their scores; ")
    assert refusal(DetectorSpec(model=f"{dino}/", labels=["red car"], prompt=["{}.", "{}"])) == (
        "prompt: found 2 templates for a detector; allowed: one"
    )


@pytest.mark.parametrize("name", ["clip", "siglip", "owlv2", "grounding dino"])
def test_the_lines_that_describe_prints_are_a_job(name: str, folders: Folders) -> None:
    found = explain(f"{folders(name)}/")
    assert found.facts["classes"] == "the `labels` of the job spec: texts"
    left_out = {"classifier": None, "detector": None}
    spec = build_spec({"manifest": "m", "output": "o", **left_out, **yaml.safe_load(found.spec)}, "describe")
    loaded = load_all(spec.models)
    assert all(one.resolved.notes == () for one in loaded.values())
    assert loaded["detector" if name in FINDERS else "taggers.objects"].resolved.classes == ("cat", "red car")


def test_describe_says_why_labels_cannot_be_used_of_a_folder_that_still_embeds(
    copy: Folders,
) -> None:
    folder = copy("clip")
    (folder / "tokenizer.json").unlink()
    found = explain(f"{folder}/")
    assert found.facts["labels cannot be used"].startswith(f"there is no tokenizer in {folder} ")
    assert found.spec == f"embedder: {folder}\n"


def test_what_the_page_says_to_write_for_labels_is_a_model(
    folders: Folders, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    own = page.partition("## Labels of your own (zero-shot)\n")[2].partition("\n### ")[0]
    lines = re.findall(r"^\| .+ \| `(.+)` \|$", own, re.MULTILINE)
    for name in ("clip", "siglip2", "owlv2", "grounding dino"):
        (tmp_path / name.replace(" ", "-")).symlink_to(folders(name))
    (tmp_path / "labels.txt").write_text("beach\nforest\n")
    monkeypatch.chdir(tmp_path)
    found = []
    for line in lines:
        job = {"manifest": "m.csv", "output": "out", "classifier": None, "detector": None}
        ((name, spec),) = build_spec(job | yaml.safe_load(line), "the page").models.items()
        loaded = load(spec)
        result = Alone(loaded, 1, runtime="torch")(pictures[:1])[0]
        found.append((name, loaded.resolved.classes, loaded.resolved.notes, type(result).__name__))
    places, things = ("beach", "forest", "city"), ("cat", "red car")
    assert found == [
        *[("classifier", places, (), "Classification")] * 2,
        ("taggers.scene", places, (), "Classification"),
        ("taggers.scene", places[:2], (), "Classification"),
        *[("detector", things, (), "Detections")] * 3,
        ("embedder", (), (), "ndarray"),
    ]
