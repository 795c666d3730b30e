"""Embeddings against the libraries' own features, one image at a time."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError, ModelError
from schemas.tasks import ClassifierSpec, EmbedderSpec, TaggerSpec
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import CPU, noise, photos
from workers.models.embedder import LastInput
from workers.models.model import EmbedderModel
from workers.models.registry import load, runners_of
from workers.models.runner import RunnerOptions


def saved(module: nn.Module, folder: Any) -> str:
    """A weights file of a module."""
    path = folder / "weights.pth"
    torch.save(module.state_dict(), path)
    return str(path)


def lengths(vectors: list[Any]) -> Any:
    return np.linalg.norm(np.stack(vectors), axis=1)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("runtime", ["torch", "auto"])
def test_the_built_in_classifiers_embedding_is_what_timm_gives_for_each_image(
    batch_size: int, runtime: Any
) -> None:
    loaded, images = load(EmbedderSpec(model="efficientnet_lite0", normalize=False)), list(photos().values())
    network = load(ClassifierSpec()).model.module
    expected = timm_features(network, loaded.model.transform, images)
    found = Alone(loaded, batch_size, runtime=runtime)(images)
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-4)
    assert loaded.resolved.width == loaded.model.width == found[0].shape[0] == 1280


def timm_features(network: Any, transform: Any, images: list[Any]) -> Any:
    """What timm's documentation calls pooled features, of one image after the other."""
    rows = []
    with torch.inference_mode():
        for image in images:
            batch = transform(torch.from_numpy(image.pixels.copy()).permute(2, 0, 1))[None]
            rows.append(network.forward_head(network.forward_features(batch), pre_logits=True)[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv3_small_050",
        "vit_tiny_patch16_224",
        "convnext_atto",
        "resnet10t",
        pytest.param("deit_tiny_distilled_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_timms_embedding_is_its_own_whatever_the_batch(name: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=7).eval()
    spec = EmbedderSpec(
        model=f"timm/{name}",
        weights=saved(network, tmp_path),
        categories=[f"c{n}" for n in range(7)],
        normalize=False,
    )
    loaded, images = load(spec), list(photos().values())[:3]
    expected = timm_features(network, loaded.model.transform, images)
    for batch_size in (1, 3):
        found = np.stack(Alone(loaded, batch_size)(images))
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("resnet18", "flatten"),
        ("squeezenet1_1", "classifier.0"),  # a map
        ("mobilenet_v3_small", "classifier.2"),
        pytest.param("convnext_tiny", "classifier.1", marks=pytest.mark.slow),
    ],
)
def test_torchvisions_embedding_is_what_its_last_layer_gets(name: str, node: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    network = models.get_model(name, weights=None, num_classes=7).eval()
    reference = create_feature_extractor(network, [node])
    names = [f"c{n}" for n in range(7)]
    spec = EmbedderSpec(model=name, weights=saved(network, tmp_path), categories=names, normalize=False)
    loaded, images = load(spec), list(photos().values())[:3]
    rows = []
    with torch.inference_mode():
        for image in images:
            batch = loaded.model.transform(torch.from_numpy(image.pixels.copy()).permute(2, 0, 1))[None]
            (features,) = reference(batch).values()
            rows.append((features.mean(dim=(2, 3)) if features.ndim == 4 else features)[0].numpy())
    for batch_size in (1, 3):
        found = np.stack(Alone(loaded, batch_size)(images))
        np.testing.assert_allclose(found, np.stack(rows), atol=1e-4, rtol=1e-4)


def test_embeddings_have_length_one_unless_that_is_switched_off() -> None:
    images = list(photos().values())[:2]
    found = Alone(load(EmbedderSpec(model="efficientnet_lite0")), 2)(images)
    assert [vector.dtype for vector in found] == [np.float32] * 2
    np.testing.assert_allclose(lengths(found), 1, atol=1e-6)
    raw = Alone(load(EmbedderSpec(model="efficientnet_lite0", normalize=False)), 2)(images)
    np.testing.assert_allclose(np.stack(raw) / lengths(raw)[:, None], np.stack(found), atol=1e-6)


class Counting(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.images = module, 0

    def forward(self, batch: torch.Tensor) -> Any:
        self.images += len(batch)
        return self.module(batch)


def test_a_network_that_several_models_have_is_computed_once_and_gives_each_what_it_gives_alone() -> None:
    specs = {
        "classifier": ClassifierSpec(score_threshold=0.1),
        "embedder": EmbedderSpec(model="efficientnet_lite0"),
        "taggers.scene": TaggerSpec(model="efficientnet_lite0", top_k=2),
    }
    loaded = {name: load(spec) for name, spec in specs.items()}
    images = list(photos().values())
    (runner,) = runners_of(loaded, RunnerOptions(CPU, 4, runtime="torch"))
    assert runner.name == "classifier + embedder + taggers.scene"
    runner._module = counting = Counting(runner._module)
    found = runner(images)
    assert counting.images == len(images)
    for position, (name, index) in enumerate((("classifier", 0), ("embedder", 2), ("taggers.scene", 3))):
        assert list(specs)[position] == name
        alone = Alone(load(specs[name]), 4, runtime="torch")(images)
        for together, by_itself in zip(found, alone, strict=True):
            assert not isinstance(together, ImageError)
            one, other = together[index], by_itself
            if name == "embedder":
                np.testing.assert_allclose(one, other, atol=1e-6)
            else:
                assert one.label_ids.tolist() == other.label_ids.tolist()
                np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)


def test_other_weights_or_options_are_another_network(tmp_path: Any) -> None:
    torch.manual_seed(0)
    path = saved(models.resnet18(num_classes=2), tmp_path)
    own: dict[str, Any] = {"model": "resnet18", "weights": path, "categories": ["a", "b"]}
    loaded = {"classifier": load(ClassifierSpec()), "taggers.own": load(TaggerSpec(**own))}
    loaded["embedder"] = load(EmbedderSpec(**own))
    names = [runner.name for runner in runners_of(loaded, RunnerOptions(CPU, 1, runtime="torch"))]
    assert names == ["classifier", "taggers.own + embedder"]


def embedder(module: nn.Module) -> Alone:
    loaded = load(EmbedderSpec(model="efficientnet_lite0"))
    model = EmbedderModel(module=module, transform=lambda image: image.float(), width=2)
    return Alone(type(loaded)(model, loaded.spec, loaded.resolved), 4)


class Odd(nn.Module):
    """Features that are no numbers for a black image."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        value = batch[:, 0, 0, 0]
        return torch.stack([value / value, value], dim=1)


def test_an_image_with_an_embedding_that_is_no_number_fails_alone() -> None:
    black, grey = noise(1), noise(2)
    black.pixels[0, 0], grey.pixels[0, 0] = 0, 9
    found = embedder(Odd())([black, grey])
    assert (found[0].stage, found[0].code) == (Stage.EMBED, ErrorCode.NON_FINITE)
    np.testing.assert_allclose(found[1], np.array([1, 9]) / np.linalg.norm([1, 9]), atol=1e-6)


def test_an_embedder_of_another_width_than_it_says_is_a_failed_row() -> None:
    (found,) = embedder(nn.Flatten())([noise(1)])
    assert (found.stage, found.code) == (Stage.EMBED, ErrorCode.MODEL_ERROR)
    assert "the embedder answered with" in found.message


def test_the_hook_of_an_embedder_does_not_stay_in_the_classifier() -> None:
    network = models.resnet18(num_classes=2).eval()
    both = LastInput(network)
    both(torch.zeros(1, 3, 64, 64))
    assert both.width == 512
    assert not network.fc._forward_pre_hooks


def test_a_detector_is_no_embedder() -> None:
    with pytest.raises(
        ModelError, match="nanodet_g is a detector, not an embedder; name it under `detector:`"
    ):
        load(EmbedderSpec(model="nanodet_g"))
