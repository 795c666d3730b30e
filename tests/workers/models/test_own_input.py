"""What a job spec says of the input of classifiers: against the libraries' own transforms."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torchvision import models
from torchvision.transforms import v2

from schemas.exceptions import ModelError
from schemas.tasks import ClassifierSpec, DetectorSpec, InputSpec
from tests.workers.models.pictures import PHOTOS
from workers.models.registry import load

NAMES = ["a", "b"]


def weights_of(model: str, folder: Path) -> str:
    """A file of random weights for two classes."""
    made: Any = {
        "squeezenet1_0": lambda: models.squeezenet1_0(weights=None, num_classes=2),
        "timm/test_vit": lambda: timm.create_model("test_vit", num_classes=2),
        "efficientnet_lite0": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=2),
    }
    torch.save(made[model]().state_dict(), folder / "own.pth")
    return str(folder / "own.pth")


def transformed(spec: ClassifierSpec) -> tuple[torch.Tensor, str]:
    """What a model makes of a photo, and the size that it says it makes."""
    loaded = load(spec)
    photo = v2.functional.pil_to_tensor(Image.open(PHOTOS / "coffee.png").convert("RGB"))
    return loaded.model.transform(photo), loaded.resolved.info.input_size


@pytest.mark.parametrize("model", ["squeezenet1_0", "timm/test_vit", "efficientnet_lite0"])
def test_the_input_of_weights_of_ones_own_is_what_torchvisions_transforms_of_it_make(
    tmp_path: Path, model: str
) -> None:
    own = InputSpec(size=200, crop=160, interpolation="bicubic", mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3])
    spec = ClassifierSpec(model=model, weights=weights_of(model, tmp_path), categories=NAMES, input=own)
    reference = v2.Compose(
        [
            v2.Resize(200, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(160),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]),
        ]
    )
    found, size = transformed(spec)
    assert size == "160x160"
    expected = reference(Image.open(PHOTOS / "coffee.png").convert("RGB"))
    assert (found - expected).abs().max() < 1e-6
    plain, before = (load(spec.model_copy(update={"input": each})).resolved for each in (None, own))
    assert plain.fingerprint != before.fingerprint
    assert plain.network != before.network


def test_what_is_not_said_of_an_input_stays_the_models_own(tmp_path: Path) -> None:
    module = timm.create_model("test_vit", num_classes=2)
    config = resolve_model_data_config(module)
    expected = create_transform(**{**config, "std": (0.25, 0.25, 0.25)}, is_training=False)(
        Image.open(PHOTOS / "coffee.png").convert("RGB")
    )
    spec = ClassifierSpec(
        model="timm/test_vit",
        weights=weights_of("timm/test_vit", tmp_path),
        categories=NAMES,
        input=InputSpec(std=0.25),
    )
    assert torch.equal(transformed(spec)[0], expected)


def test_values_up_to_255_are_a_scale_of_1_and_a_size_alone_is_the_networks_input(tmp_path: Path) -> None:
    weights = weights_of("squeezenet1_0", tmp_path)
    spec = ClassifierSpec(model="squeezenet1_0", weights=weights, categories=NAMES)
    shares = InputSpec(size=128, mean=0.5, std=0.5)
    values = InputSpec(size=128, scale=1, mean=127.5, std=127.5)
    (one, size), (other, _) = (
        transformed(spec.model_copy(update={"input": each})) for each in (shares, values)
    )
    assert one.shape == (3, 128, 128)
    assert size == "128x128"
    assert torch.allclose(one, other, atol=1e-6)
    squashed, size = transformed(spec.model_copy(update={"input": InputSpec(size=[96, 160])}))
    assert squashed.shape == (3, 96, 160)
    assert size == "96x160"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            ClassifierSpec(input=InputSpec(letterbox="center", channels="bgr", mean=0.5)),
            "input: found letterbox, channels, which efficientnet_lite0 cannot use; allowed: size, crop, "
            "interpolation, scale, mean, std",
        ),
        (
            DetectorSpec(input=InputSpec(size=640)),
            "input: found size, which nanodet_g cannot use; it makes its own; leave `input` out",
        ),
        (
            DetectorSpec(model="fcos_resnet50_fpn", input=InputSpec(mean=0.5)),
            "input: found mean, which fcos_resnet50_fpn cannot use; it makes its own; leave `input` out",
        ),
        (
            ClassifierSpec(model="my_models:sky", input=InputSpec(crop=7)),
            "input: found crop, which my_models:sky cannot use; it makes its own; leave `input` out",
        ),
        (
            ClassifierSpec(input=InputSpec(crop=300)),
            "input: found a crop of 300x300 from 256x256; allowed: at most the size",
        ),
    ],
)
def test_what_a_model_cannot_use_of_an_input_is_refused_by_name(spec: Any, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(spec)
    assert str(caught.value) == message
