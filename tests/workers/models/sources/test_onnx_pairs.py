"""CLIP and SigLIP as two ONNX files, in a folder or apart, against transformers' own zero-shot pipeline."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from torchvision import transforms

pytest.importorskip("transformers", reason="needs raylabel[transformers]")
pytest.importorskip("sentencepiece", reason="needs raylabel[transformers]")

from schemas.exceptions import ModelError
from schemas.spec_file import build_spec
from schemas.tasks import ClassifierSpec, EmbedderSpec, InputSpec, TaggerSpec
from tests.workers.models.alone import Alone
from tests.workers.models.onnx.pairs import BIAS, SCALE, export_half, make_pair, make_whole, network_of
from tests.workers.models.pictures import CPU, ROOT
from tests.workers.models.sources.test_zero_shot import (
    LABELS,
    SCORE,
    Pictures,
    as_pil,
    pictures,
    pipeline,
    refusal,
    scores,
)
from tests.workers.models.transformers.made_texts import Folders, made_once
from workers.label.embed import TextEmbedder
from workers.models.preprocess import CLIP_MEAN, CLIP_STD
from workers.models.registry import explain, load, load_all, runners_of
from workers.models.runner import RunnerOptions
from workers.models.transformers.network import quiet_and_offline

__all__ = ["pictures"]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders of transformers' by name, each made once."""
    return made_once(tmp_path_factory.mktemp("wholes"), make_whole)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, wholes: Folders) -> Folders:
    """The same with two ONNX files in place of their tensors."""
    return made_once(tmp_path_factory.mktemp("pairs"), lambda name, folder: make_pair(wholes(name), folder))


@pytest.fixture
def copy(pairs: Folders, tmp_path: Path) -> Folders:
    """Pairs to change."""
    return lambda name: Path(shutil.copytree(pairs(name), tmp_path / "copies" / name))


def stated(name: str) -> dict[str, Any]:
    """What a job spec says of scores."""
    return {"logit_scale": SCALE} | ({"logit_bias": BIAS[name]} if name in BIAS else {})


class MakersPixels:
    """What CLIP's and SigLIP's makers turn images into, in place of a pipeline's image processor."""

    def __init__(self, name: str) -> None:
        sizes = [(64, 64)] if "siglip" in name else [72]
        crops = [] if "siglip" in name else [transforms.CenterCrop(64)]
        mean, std = ((0.5,) * 3, (0.5,) * 3) if "siglip" in name else (CLIP_MEAN, CLIP_STD)
        resize = [transforms.Resize(size, transforms.InterpolationMode.BICUBIC) for size in sizes]
        last = [transforms.ToTensor(), transforms.Normalize(mean, std)]
        self.steps = transforms.Compose([*resize, *crops, *last])

    def __call__(self, images: list[Any], return_tensors: str) -> Any:
        from transformers import BatchFeature

        assert return_tensors == "pt"
        return BatchFeature({"pixel_values": torch.stack([self.steps(image) for image in images])})


def expected_of(whole: Path, images: Pictures, pixels: MakersPixels | None = None) -> list[dict[str, float]]:
    """The scores of transformers' pipeline."""
    reference = pipeline("zero-shot-image-classification", whole)
    reference.image_processor = pixels or reference.image_processor
    found = [
        {x["label"]: x["score"] for x in reference(as_pil(image), candidate_labels=LABELS)}
        for image in images
    ]
    assert np.ptp([[one[label] for label in LABELS] for one in found], axis=0).max() > 30 * SCORE
    return found


def apart(folder: Path, **settings: Any) -> dict[str, Any]:
    """The keys that name a pair's files one by one, whose tokenizer is in the folder."""
    return {
        "model": str(folder / "onnx" / "vision_model.onnx"),
        "text_model": str(folder / "onnx" / "text_model.onnx"),
        "tokenizer": f"{folder}/",
        "input": InputSpec(
            size=72,
            crop=64,
            interpolation="bicubic",
            scale=255,
            mean=list(CLIP_MEAN),
            std=list(CLIP_STD),
        ),
        **settings,
    }


@pytest.mark.parametrize("name", ["clip", "metaclip 2", "siglip", "siglip2"])
def test_scores_of_a_folder_of_two_onnx_files_are_those_of_transformers_pipeline_whatever_the_batch(
    name: str, wholes: Folders, pairs: Folders, pictures: Pictures
) -> None:
    expected = expected_of(wholes(name), pictures)
    loaded = load(ClassifierSpec(model=f"{pairs(name)}/", labels=LABELS, top_k=9, **stated(name)))
    assert loaded.model.score_type == ("softmax" if "clip" in name else "sigmoid")
    for size in (1, 3):
        for result, one in zip(Alone(loaded, size)(pictures), expected, strict=True):
            assert scores(LABELS, result) == pytest.approx(one, abs=SCORE), size


@pytest.mark.parametrize(
    ("name", "inputs", "changes"),
    [
        ("clip", ["input_ids", "attention_mask"], {}),
        ("clip", ["input_ids", "attention_mask", "position_ids"], {"dtype": torch.int32}),
        ("clip", ["text"], {"batch": 1, "length": 77, "dtype": torch.int32, "vector": "embedding"}),
        ("clip", ["input_ids"], {"batch": 3}),
        ("siglip", ["input_ids"], {"length": 64, "vector": "text_embeds"}),
    ],
)
def test_a_half_for_texts_gets_what_its_inputs_want(
    name: str,
    inputs: list[str],
    changes: dict[str, Any],
    wholes: Folders,
    copy: Folders,
    pictures: Pictures,
) -> None:
    folder = copy(name)
    export_half(network_of(wholes(name)), folder / "onnx" / "text_model.onnx", *inputs, **changes)
    loaded = load(ClassifierSpec(model=f"{folder}/", labels=LABELS, top_k=9, **stated(name)))
    for result, one in zip(Alone(loaded, 2)(pictures), expected_of(wholes(name), pictures), strict=True):
        assert scores(LABELS, result) == pytest.approx(one, abs=SCORE)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_scores_of_two_files_that_are_named_apart_are_those_of_the_pipeline_with_the_makers_pixels(
    name: str, wholes: Folders, copy: Folders, pictures: Pictures
) -> None:
    folder = copy(name)
    if name == "siglip":  # whose tokenizer does not say it
        export_half(network_of(wholes(name)), folder / "onnx" / "text_model.onnx", "input_ids", length=64)
    expected = expected_of(wholes(name), pictures, MakersPixels(name))
    pixels = {}
    if name == "siglip":
        size = InputSpec(size=[64, 64], interpolation="bicubic", scale=255, mean=0.5, std=0.5)
        pixels = {"input": size}
    spec = TaggerSpec(**apart(folder, labels=LABELS, top_k=9, **stated(name), **pixels))
    loaded = load(spec)
    assert loaded.model.score_type == ("softmax" if name == "clip" else "sigmoid")
    assert loaded.resolved.notes == ()
    for result, one in zip(Alone(loaded, 3)(pictures), expected, strict=True):
        assert scores(LABELS, result) == pytest.approx(one, abs=SCORE)


@pytest.mark.parametrize("is_apart", [False, True])
def test_labels_are_encoded_once_and_workers_hold_the_image_half_only(
    is_apart: bool, copy: Folders, pictures: Pictures
) -> None:
    folder = copy("clip")
    keys = apart(folder) if is_apart else {"model": f"{folder}/"}
    specs: dict[str, Any] = {
        "classifier": ClassifierSpec(**keys, labels=LABELS, logit_scale=SCALE),
        "embedder": EmbedderSpec(**keys),
        "taggers.animals": TaggerSpec(**keys, labels=["cat", "dog"], prompt="{}"),
    }
    first = load_all(specs)
    texts = {name: one.resolved.texts for name, one in first.items() if one.resolved.texts}
    for file in folder.glob("*token*"):
        file.unlink()
    if is_apart:
        (folder / "onnx" / "text_model.onnx").unlink()
    workers = load_all(specs, texts)
    assert [one.resolved.fingerprint for one in workers.values()] == [
        one.resolved.fingerprint for one in first.values()
    ]
    (runner,) = runners_of(workers, RunnerOptions(CPU, 2, "auto", "auto"))
    shared: list[Any] = list(runner(pictures))
    place = [predictor.name for predictor in runner.predictors].index("classifier")
    for together, alone in zip(shared, Alone(first["classifier"], 1)(pictures), strict=True):
        np.testing.assert_allclose(together[place].scores, alone.scores, atol=1e-5)


@pytest.mark.parametrize("is_apart", [False, True])
def test_what_decides_scores_is_in_the_fingerprint_wherever_the_files_lie(
    is_apart: bool, wholes: Folders, copy: Folders, tmp_path: Path
) -> None:
    folder = copy("clip")

    def fingerprint(where: Path = folder, **changes: Any) -> str:
        keys = apart(where) if is_apart else {"model": f"{where}/"}
        return load(ClassifierSpec(**{**keys, "labels": LABELS, **changes})).resolved.fingerprint

    own = fingerprint()
    assert fingerprint(Path(shutil.copytree(folder, tmp_path / "moved" / "clip"))) == own
    assert fingerprint(logit_scale=100) == own
    others = [fingerprint(labels=LABELS[::-1]), fingerprint(prompt="{}"), fingerprint(logit_scale=50)]
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text() + "\n")
    others.append(fingerprint())
    network = network_of(wholes("clip"))
    for half, name in (("text", "input_ids"), ("vision", "pixel_values")):
        with torch.no_grad():
            getattr(network, f"{'visual' if half == 'vision' else half}_projection").weight[0, 0] += 1
        export_half(network, folder / "onnx" / f"{half}_model.onnx", name)
        others.append(fingerprint())
    assert len({own, *others}) == 1 + len(others)


@pytest.mark.parametrize("is_apart", [False, True])
def test_a_text_is_searched_with_the_half_for_texts_of_the_runs_embedder_or_not_at_all(
    is_apart: bool, wholes: Folders, copy: Folders
) -> None:
    folder, text = copy("clip"), "A red car at night"
    spec = EmbedderSpec(**apart(folder)) if is_apart else EmbedderSpec(model=f"{folder}/")
    resolved = load(spec).resolved
    assert resolved.takes_texts
    network = network_of(wholes("clip"))
    with quiet_and_offline() as transformers, torch.inference_mode():
        tokens = transformers.AutoTokenizer.from_pretrained(wholes("clip"))([text], return_tensors="pt")
        features = network.get_text_features(**tokens).pooler_output[0]
    record = type(resolved)(**resolved.model_dump(mode="json"))
    found = TextEmbedder(spec, record)(text, lambda _: None)
    np.testing.assert_allclose(found, features / features.norm(), atol=1e-5)
    with torch.no_grad():
        network.text_projection.weight[0, 0] += 1
    export_half(network, folder / "onnx" / "text_model.onnx", "input_ids")
    with pytest.raises(ModelError, match="has changed since the run"):
        TextEmbedder(spec, record)


def test_tensors_in_files_beside_the_two_are_read_and_are_in_the_sha256(copy: Folders) -> None:
    folder = copy("clip")
    spec = ClassifierSpec(model=f"{folder}/", labels=LABELS)
    inside = load(spec).model
    file = folder / "onnx" / "vision_model.onnx"
    onnx.save(
        *(onnx.load(str(file)), str(file)),
        save_as_external_data=True,
        location="vision_model.onnx_data",
        size_threshold=0,
    )
    loaded = load(spec)
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded.model.module(image), inside.module(image))
    data = file.with_name("vision_model.onnx_data")
    data.write_bytes(data.read_bytes()[:-4] + b"\0\0\0\0")
    assert load(spec).resolved.weights_sha256 != loaded.resolved.weights_sha256


def test_a_folder_laid_out_as_immichs_says_how_its_files_are_named(
    wholes: Folders, copy: Folders, pictures: Pictures
) -> None:
    folder, network = copy("clip"), network_of(wholes("clip"))
    shutil.rmtree(folder / "onnx")
    export_half(network, folder / "visual" / "model.onnx", "image", batch=1, vector="embedding")
    settings: dict[str, Any] = {"batch": 1, "length": 77, "dtype": torch.int32, "vector": "embedding"}
    export_half(network, folder / "textual" / "model.onnx", "text", **settings)
    for file in folder.glob("token*"):
        file.rename(folder / "textual" / file.name)
    (folder / "config.json").write_text('{"embed_dim": 16, "vision_cfg": {"image_size": 64}}')
    found = refusal(TaggerSpec(model=f"{folder}/", labels=LABELS))
    named = f"`model: {folder}/visual/model.onnx`, `text_model: {folder}/textual/model.onnx`"
    assert named in found
    keys = apart(folder) | {"model": f"{folder}/visual/model.onnx"}
    keys |= {"text_model": f"{folder}/textual/model.onnx", "tokenizer": None}
    (result, *_) = Alone(load(TaggerSpec(**keys, labels=LABELS, top_k=9, logit_scale=SCALE)), 2)(pictures)
    (one, *_) = expected_of(wholes("clip"), pictures, MakersPixels("clip"))
    assert scores(LABELS, result) == pytest.approx(one, abs=SCORE)


def test_what_the_files_do_not_say_of_scores_has_to_be_stated_and_what_changes_nothing_is_refused(
    wholes: Folders, pairs: Folders
) -> None:
    siglip, clip = pairs("siglip"), pairs("clip")
    with pytest.raises(ModelError) as refused:
        load(TaggerSpec(model=f"{siglip}/", labels=LABELS, logit_scale=100))
    first, command = str(refused.value).split("\n")
    assert first == (
        f"{siglip}: the ONNX files of a SigLIP do not hold what makes scores of cosines; add logit_bias, "
        "which the files that it was exported from have:"
    )
    assert command.startswith("  python -c ")
    assert "a CLIP, whose softmax no bias changes; leave it out" in refusal(
        TaggerSpec(model=f"{clip}/", labels=LABELS, logit_bias=1)
    )
    whole = wholes("clip")
    assert refusal(TaggerSpec(model=f"{whole}/", labels=LABELS, logit_scale=100)) == (
        f"logit_scale: found for {whole}, whose tensors have it; allowed: for ONNX files. Leave it out"
    )
    (note,) = load(TaggerSpec(model=f"{clip}/", labels=LABELS, logit_scale=4.6)).resolved.notes
    assert note.startswith("logit_scale is 4.6, which looks like a logarithm")
    (note,) = load(TaggerSpec(**apart(clip, labels=LABELS))).resolved.notes
    assert note.startswith("labels: vision_model.onnx is taken for a CLIP: softmax over 100 x cosine")


def test_two_files_that_are_no_halves_of_one_model_are_refused_in_a_sentence(
    wholes: Folders, pairs: Folders, copy: Folders, tmp_path: Path
) -> None:
    clip, clip_whole, folder = pairs("clip"), wholes("clip"), copy("clip")
    text, vision = folder / "onnx" / "text_model.onnx", folder / "onnx" / "vision_model.onnx"

    def said(**changes: Any) -> str:
        return refusal(TaggerSpec(**apart(folder, labels=LABELS, **changes)))

    assert "nope.onnx cannot be read: No such file" in said(text_model=str(tmp_path / "nope.onnx"))
    assert "vision_model.onnx is no half for texts: found the inputs 'pixel_values' " in said(
        text_model=str(vision)
    )
    assert "text_model.onnx: which input takes images? found 'input_ids' (n, a) int64" in said(
        model=str(text)
    )
    assert said(tokenizer=str(tmp_path)).startswith(
        f"there is no tokenizer in {tmp_path} (tokenizer.json, vocab.json, vocab.txt, spiece.model or "
        "tokenizer.model), which makes numbers of texts; name its folder as `tokenizer`"
    )
    shutil.copy(clip / "tokenizer.json", tmp_path)
    assert "does not say what texts are filled up with (pad_token)" in said(
        tokenizer=str(tmp_path / "tokenizer.json")
    )
    longer = folder / "tokenizer_config.json"
    longer.write_text(longer.read_text().replace("77", "1000000000000"))
    assert '"model_max_length": 77 for a CLIP, 64 for a SigLIP' in said()
    shutil.copy(clip / "tokenizer_config.json", longer)
    other = export_half(network_of(clip_whole), tmp_path / "raw.onnx", "input_ids", vector="pooler_output")
    assert said(text_model=str(other)).startswith(
        "raw.onnx has pooler_output and no text_embeds: it was exported without the projection into the space"
    )
    assert said(text_model=str(pairs("siglip") / "onnx" / "text_model.onnx")).startswith(
        "the text half of text_model.onnx fails: "  # it takes 64 tokens
    )
    export_half(network_of(wholes("siglip")), tmp_path / "wide.onnx", "input_ids", length=64, vector="x")
    assert said(text_model=str(tmp_path / "wide.onnx")).startswith(
        "the half for images gives 16 numbers and that for texts 32; allowed: the two halves of one model"
    )
    odd = onnx.load(str(text))
    odd.graph.input.append(onnx.helper.make_tensor_value_info("language", onnx.TensorProto.INT64, ["n", 1]))
    onnx.save(odd, str(tmp_path / "odd.onnx"))
    assert "odd.onnx is no half for texts: found the inputs" in said(text_model=str(tmp_path / "odd.onnx"))
    assert "takes at most 77; shorten it" in refusal(
        TaggerSpec(**apart(folder, labels=["a " * 90], logit_scale=SCALE))
    )
    keys = apart(folder, labels=LABELS)
    assert "labels: found for vision_model.onnx, which has classes of its own; allowed: " in refusal(
        TaggerSpec(model=keys["model"], labels=LABELS, input=keys["input"])
    )
    assert "size: [224, 224], mean: 0.5, std: 0.5" in str(_raised(TaggerSpec(**(keys | {"input": None}))))


def _raised(spec: Any) -> ModelError:
    with pytest.raises(ModelError) as raised:
        load(spec)
    return raised.value


def test_a_folder_with_one_half_or_with_halves_of_another_size_is_refused_in_a_sentence(
    copy: Folders,
) -> None:
    folder = copy("clip")
    config = folder / "preprocessor_config.json"
    config.write_text(config.read_text().replace("64", "80").replace("72", "80"))
    assert refusal(TaggerSpec(model=f"{folder}/", labels=LABELS)) == (
        "vision_model.onnx takes 64x64 (height x width), but images are made 80x80; allowed: the settings "
        "that belong to that export"
    )
    (folder / "onnx" / "text_model.onnx").unlink()
    assert refusal(EmbedderSpec(model=f"{folder}/")).startswith(
        f"there is no onnx/text_model.onnx in {folder}, the half for texts beside onnx/vision_model.onnx; "
    )
    (folder / "onnx" / "vision_model.onnx").write_bytes(b"x")
    (folder / "onnx" / "text_model.onnx").write_bytes(b"x")
    found = refusal(EmbedderSpec(model=f"{folder}/"))
    assert found.startswith(f"{folder}/onnx/vision_model.onnx is no ONNX file")


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_lines_that_describe_prints_are_a_job(name: str, pairs: Folders) -> None:
    found = explain(f"{pairs(name)}/")
    assert found.facts["halves"] == "onnx/vision_model.onnx and onnx/text_model.onnx"
    assert found.facts["scores"].startswith("softmax" if name == "clip" else "sigmoid")
    spec = build_spec(
        {"manifest": "m", "output": "o", "classifier": None, "detector": None, **yaml.safe_load(found.spec)},
        "describe",
    )
    loaded = load_all(spec.models)
    assert all(one.resolved.notes == () for one in loaded.values())
    assert loaded["taggers.objects"].resolved.classes == ("cat", "red car")


def test_what_the_page_says_to_write_is_a_model(
    copy: Folders, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    own = page.partition("### CLIP and SigLIP as two ONNX files\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| .+ \| `(.+)` \|$", own, re.MULTILINE)
    assert len(lines) == 5
    for name in ("clip", "siglip"):
        (tmp_path / f"{name}-onnx").symlink_to(copy(name))
    for half in ("visual", "textual"):
        shutil.copytree(copy_of_clip := tmp_path / "clip-onnx", tmp_path / "immich" / half)
        file = "vision_model.onnx" if half == "visual" else "text_model.onnx"
        shutil.copy(copy_of_clip / "onnx" / file, tmp_path / "immich" / half / "model.onnx")
    monkeypatch.chdir(tmp_path)
    for line in lines:
        small = line.replace("size: 224, crop: 224", "size: 64, crop: 64")  # what ours are made for
        job = {"manifest": "m.csv", "output": "out", "classifier": None, "detector": None}
        (spec,) = build_spec(job | yaml.safe_load(small), "the page").models.values()
        loaded = load(spec)
        assert loaded.resolved.notes == ()
        assert loaded.resolved.takes_texts == ("embedder" in line)
        assert Alone(loaded, 1)(pictures[:1])


def test_a_half_for_images_is_described_as_an_embedder_that_may_have_one_for_texts(pairs: Folders) -> None:
    found = explain(str(pairs("clip") / "onnx" / "vision_model.onnx"))
    assert found.task == "embedder"
    assert found.facts["taken for"].endswith(
        "the half for images of a CLIP; `text_model` names that for texts"
    )
    assert found.facts["layout"] == "features of image_embeds"
    (section,) = yaml.safe_load(found.spec).values()
    assert load(EmbedderSpec(**(section | {"input": InputSpec(**section["input"])}))).model.width == 16
