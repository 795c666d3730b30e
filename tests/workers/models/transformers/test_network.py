"""Networks: how what a folder says of itself is checked, and what is refused before anything starts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers", reason="needs raylabel[transformers]")

from schemas.exceptions import ModelError
from schemas.tasks import ClassifierSpec, DetectorSpec, EmbedderSpec, TaggerSpec
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import small_photos
from tests.workers.models.transformers.made import CLASSIFIERS, DETECTORS, EMBEDDERS, LABELS, make
from workers.models.registry import load
from workers.models.transformers.folder import opened
from workers.models.transformers.network import architecture_of
from workers.models.transformers.processor import load_processor

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return make(CLASSIFIERS["vit"], tmp_path / "vit")


def edit(file: Path, **changes: object) -> None:
    """Sets keys of a file of JSON; None takes one out."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def refusal(spec: Any) -> str:
    with pytest.raises(ModelError) as refused:
        load(spec)
    return str(refused.value)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Changes the tensors of a folder."""

    def changed(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return changed


def config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / CONFIG, **changes)


def preprocessor(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / PROCESSOR, **changes)


HEAD = "classifier.weight"
AS_DESCRIBED = (
    "the tensors in {folder} are not those of a ViTForImageClassification as config.json describes it: "
)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (tensors(lambda state: state.pop(HEAD)), f"{AS_DESCRIBED}1 tensor missing ({HEAD})"),
        (
            tensors(lambda state: state.update({"head.weight": state[HEAD].clone()})),
            f"{AS_DESCRIBED}1 tensor unexpected (head.weight)",
        ),
        (
            tensors(lambda state: state.update({HEAD: torch.zeros(9, 32)})),
            f"{AS_DESCRIBED}1 tensor of another shape ({HEAD})",
        ),
        (
            tensors(lambda state: state[HEAD][0, 0].fill_(torch.nan)),
            f"the weights of {{folder}}/ ({{folder}}) are broken: network.{HEAD} has NaN or infinite values",
        ),
        (
            config(architectures=None),
            "config.json of {folder} names no architecture; add the class",
        ),
        (config(architectures="ViTModel"), "config.json of {folder} names no architecture"),
        (
            config(architectures=["pipeline"]),
            "{folder} is a pipeline (config.json, architectures), which",
        ),
        (
            config(architectures=["ViT2ForMars"]),
            "is a ViT2ForMars (config.json, architectures), which",
        ),
        (config(architectures=["../x"]), "is a ../x (config.json, architectures), which transformers"),
        (
            config(architectures=["SwinModel"]),
            "SwinModel is of model_type 'swin', found 'vit'",
        ),
        (config(model_type="bert"), "ViTForImageClassification is of model_type 'vit', found 'bert'"),
        (
            config(architectures=["BertForSequenceClassification"], model_type="bert"),
            "is a BertForSequenceClassification, which raylabel has no use for; allowed: …For",
        ),
        (config(problem_type="regression"), "no scores (problem_type is regression in its config.json)"),
        (config(id2label={"0": "a", "7": "b"}), "id2label names 2 classes, but not 0 to 1"),
        (config(id2label={str(i): "" for i in range(5)}), "id2label: name 1 is blank"),
        (config(num_hidden_layers=10**9), "num_hidden_layers is 1000000000, but there are only 40 tensors"),
        (config(hidden_size=10**6), "a network of "),
        (config(hidden_size="wide"), "config.json of {folder} is refused by transformers"),
        (
            config(quantization_config={"load_in_8bit": True}),
            "has quantization_config: its tensors are",
        ),
        (
            config(transformers_weights="other.bin"),
            "has transformers_weights: it names another file",
        ),
        (config(backbone="hf-hub:user/model"), "its backbone 'hf-hub:user/model' is a model elsewhere"),
        (
            preprocessor(image_processor_type="AutoModel"),
            "image_processor_type is 'AutoModel'; allowed",
        ),
        (
            preprocessor(image_processor_type="NoImageProcessor"),
            "image_processor_type is NoImageProcessor, which transformers",
        ),
        (preprocessor(size={"height": 10**6, "width": 10**6}), "allowed: sides of 1 to 8,192 pixels"),
        (preprocessor(size={"width": 64}), "preprocessor_config.json of {folder} cannot be used"),
        (preprocessor(image_processor_type="Pix2StructImageProcessor"), "pixel_values (3, height, width)"),
    ],
)
def test_a_folder_that_cannot_be_computed_is_refused_in_a_sentence(
    damage: Callable[[Path], None], said: str, vit: Path
) -> None:
    damage(vit)
    found = refusal(ClassifierSpec(model=f"{vit}/"))
    assert said.format(folder=vit) in found
    assert "\n" not in found


def test_a_folder_of_another_task_names_the_right_section(vit: Path, tmp_path: Path) -> None:
    detr = make(DETECTORS["detr"], tmp_path / "detr")
    clip = make(EMBEDDERS["clip"], tmp_path / "clip")
    assert refusal(ClassifierSpec(model=f"{detr}/")) == (
        f"{detr} is a detector (DetrForObjectDetection), not a classifier; name it under `detector:` in "
        "the job spec"
    )
    assert "not an embedder; name it under `detector:`" in refusal(EmbedderSpec(model=f"{detr}/"))
    assert "not a tagger; name it under `embedder:`" in refusal(TaggerSpec(model=f"{clip}/"))
    assert "not a detector; name it under `classifier:`" in refusal(DetectorSpec(model=f"{vit}/"))


@pytest.mark.parametrize("lacking", ["preprocessor_config.json", "model.safetensors"])
def test_what_a_folder_is_goes_before_what_it_lacks(vit: Path, lacking: str) -> None:
    (vit / lacking).unlink()
    assert (
        "is a classifier (ViTForImageClassification), not a detector; name it under `classifier:`"
        in refusal(DetectorSpec(model=f"{vit}/"))
    )
    edit(vit / CONFIG, architectures=["BertForSequenceClassification"], model_type="bert")
    assert refusal(ClassifierSpec(model=f"{vit}/")) == (
        f"{vit} is a BertForSequenceClassification, which raylabel has no use for; allowed: "
        "…ForImageClassification, …ForObjectDetection, and networks of image features such as Dinov2Model, "
        "CLIPModel, SiglipVisionModel"
    )


def test_class_names_of_ones_own_are_as_many_as_the_folders(vit: Path) -> None:
    names = ["a", "b", "c", "d", "e"]
    assert load(ClassifierSpec(model=f"{vit}/", categories=names)).model.categories == tuple(names)
    found = refusal(ClassifierSpec(model=f"{vit}/", categories=names[:3]))
    assert found == f"categories: found 3 class names, but {vit} has 5 classes"


def test_names_that_a_folder_has_twice_count_as_one_and_are_told(vit: Path) -> None:
    names = ["crane", "N/A", "crane", "N/A", "dog"]
    edit(vit / CONFIG, id2label=dict(enumerate(names)), label2id=None)
    (note,) = load(ClassifierSpec(model=f"{vit}/")).resolved.notes
    assert "which count as one in the tables: 'crane' (0, 2); 'N/A' (1, 3); state `categories:`" in note


def test_positions_and_counts_of_older_releases_may_be_left_over(vit: Path) -> None:
    tensors(lambda state: state.update({"vit.embeddings.position_ids": torch.arange(17)}))(vit)
    assert load(ClassifierSpec(model=f"{vit}/")).model.categories == tuple(LABELS.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tensors_of_fewer_bits_are_computed_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    whole = make(CLASSIFIERS["vit"], tmp_path / "whole", lambda network: network.to(dtype).to(torch.float32))
    short = make(CLASSIFIERS["vit"], tmp_path / "short", lambda network: network.to(dtype))
    assert load_file(short / "model.safetensors")[HEAD].dtype == dtype
    found = []
    for folder in (whole, short):
        loaded = load(ClassifierSpec(model=f"{folder}/"))
        assert {parameter.dtype for parameter in loaded.model.module.parameters()} == {torch.float32}
        found.append([result.scores for result in Alone(loaded, 1, runtime="torch")(small_photos())])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_what_a_folder_says_about_how_to_compute_is_left_out(vit: Path) -> None:
    before = load(ClassifierSpec(model=f"{vit}/")).model.module.state_dict()
    edit(vit / CONFIG, attn_implementation="user/kernel", _attn_implementation="user/kernel", dtype="float16")
    after = load(ClassifierSpec(model=f"{vit}/")).model.module
    assert after.network.config._attn_implementation == "sdpa"
    assert all(torch.equal(before[name], tensor) for name, tensor in after.state_dict().items())


def test_a_backbone_of_timms_is_built_as_older_releases_described_it(tmp_path: Path) -> None:
    name, settings, own, sizes = DETECTORS["detr"]
    rest = {key: value for key, value in settings.items() if not key.startswith(("backbone", "use_timm"))}
    backbone = {"model_type": "timm_backbone", "backbone": "test_resnet", "out_indices": [1, 2, 3, 4]}
    folder = make((name, {**rest, "backbone_config": backbone}, own, sizes), tmp_path / "detr")
    spec = DetectorSpec(model=f"{folder}/", score_threshold=0.1)
    before = load(spec)
    assert "timm 1." in before.resolved.code
    expected = Alone(before, 1)(small_photos())
    old = {"use_timm_backbone": True, "backbone": "test_resnet", "use_pretrained_backbone": True}
    arguments = {"out_indices": [1, 2, 3, 4], "in_chans": 3, "checkpoint_path": "/dev/null"}
    edit(folder / CONFIG, backbone_config=None, **old, backbone_kwargs=arguments)
    for one, other in zip(Alone(load(spec), 1)(small_photos()), expected, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_a_vit_without_a_pooler_is_embedded_by_its_first_token(tmp_path: Path) -> None:
    folder = make(EMBEDDERS["vit"], tmp_path / "vit")
    tensors(lambda state: [state.pop(name) for name in list(state) if "pooler" in name])(folder)
    loaded = load(EmbedderSpec(model=f"{folder}/", normalize=False))
    network, images = loaded.model.module.network, small_photos()
    with torch.inference_mode():
        inputs = [loaded.model.transform(torch.from_numpy(image.pixels).permute(2, 0, 1)) for image in images]
        expected = [network(pixel_values=x[None]).last_hidden_state[0, 0].numpy() for x in inputs]
    np.testing.assert_allclose(np.stack(Alone(loaded, 3)(images)), np.stack(expected), atol=1e-4)


def test_a_classifier_is_embedded_by_what_its_last_layer_gets(vit: Path) -> None:
    loaded = load(EmbedderSpec(model=f"{vit}/", normalize=False))
    network, images = load(ClassifierSpec(model=f"{vit}/")).model.module.network, small_photos()
    with torch.inference_mode():
        inputs = [loaded.model.transform(torch.from_numpy(image.pixels).permute(2, 0, 1)) for image in images]
        expected = [network.vit(pixel_values=x[None]).last_hidden_state[0, 0].numpy() for x in inputs]
    np.testing.assert_allclose(np.stack(Alone(loaded, 3)(images)), np.stack(expected), atol=1e-4)


def test_a_network_without_a_vector_for_an_image_is_no_embedder(tmp_path: Path) -> None:
    folder = make(("DetrModel", *DETECTORS["detr"][1:]), tmp_path / "detr")
    assert "DetrModel gives no vector for an image (last_hidden_state" in refusal(
        EmbedderSpec(model=f"{folder}/")
    )


def test_the_settings_of_an_image_processor_are_part_of_the_identity(vit: Path) -> None:
    before = load(ClassifierSpec(model=f"{vit}/")).resolved
    edit(vit / PROCESSOR, do_normalize=False)
    after = load(ClassifierSpec(model=f"{vit}/")).resolved
    assert "do_normalize: false" in after.preprocessing
    assert after.preprocessing == before.preprocessing.replace("do_normalize: true", "do_normalize: false")
    assert "transformers 5." in before.code


@pytest.mark.parametrize("side", [1, 3, 4])
def test_an_image_of_three_rows_is_no_image_of_three_channels(side: int, vit: Path) -> None:
    with opened(str(vit)) as folder:
        own = load_processor(folder, architecture_of(folder))
    image = torch.randint(256, (3, side, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert own(image).shape == (3, 64, 64)
    rows = own(image.flip(1))
    assert torch.allclose(rows.flip(1), own(image), atol=0.02)


def test_a_file_that_is_overwritten_later_changes_no_tensor(vit: Path) -> None:
    module = load(ClassifierSpec(model=f"{vit}/")).model.module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    file = vit / "model.safetensors"
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(bytes(file.stat().st_size // 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
