"""timm's classifiers, by name, with timm's own weights or a user's file."""

from dataclasses import dataclass
from typing import Any

import timm
from PIL import Image
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from torch import Tensor

from schemas.exceptions import ModelError
from schemas.models import ModelInfo
from schemas.tasks import CLASSIFY, ModelSpec, Task
from workers.models.embedder import TimmFeatures
from workers.models.model import Built, ClassifierModel, Transform, versions
from workers.models.preprocess import CLASSIFIER_KEYS, Preprocess, three, with_input
from workers.models.settings import given_categories, replace_categories
from workers.models.source import Source
from workers.models.weights import Classes, load_state, read_weights

PREFIX = "timm/"


class TimmModels(Source):
    """Every model of the installed timm."""

    on_request = True

    def names(self, task: Task) -> list[str]:
        """See `Source.names`."""
        return [PREFIX + name for name in timm.list_models()] if task == CLASSIFY else []

    def has(self, model: str, task: Task) -> bool:
        """Whether timm has the model; a tag of its weights may follow its name."""
        names = self.names(task) if model.startswith(PREFIX) else []
        return model in names or model.partition(".")[0] in names

    def input_keys(self, spec: ModelSpec) -> tuple[str, ...]:  # noqa: ARG002 - of all alike
        """See `Source.input_keys`."""
        return CLASSIFIER_KEYS

    def describe(self, name: str, task: Task) -> ModelInfo:  # noqa: ARG002 - it has one task
        """See `Source.describe`; from timm's metadata."""
        return describe(name)

    def build(self, spec: ModelSpec) -> Built[ClassifierModel]:
        """See `build_classifier`."""
        return build_classifier(spec.model, spec)


def describe(name: str) -> ModelInfo:
    """A model with its default weights, from timm's metadata; nothing is built."""
    config = timm.get_pretrained_cfg(name.removeprefix(PREFIX), allow_unregistered=True)
    return ModelInfo(
        name=name,
        task=CLASSIFY.name,
        source="timm",
        input_size="x".join(str(side) for side in config.input_size[1:]) if config else "see timm",
        categories=config.num_classes if config else 0,
        licence=(config and config.license) or "see timm",
        quality="see timm",
    )


def build_classifier(name: str, spec: ModelSpec) -> Built[ClassifierModel]:
    """A classifier of timm, `timm/NAME` or `timm/NAME.TAG`, with its evaluation transform.

    Raises:
        ModelError: the weights cannot be read or do not fit, or a sha256 is given for weights that timm
            downloads.
    """
    given = given_categories(spec)
    if spec.weights is None:
        module, weights, digest = _pretrained(name, spec), f"{name}, timm's own", None
    else:
        file = read_weights(spec.weights, spec.sha256, spec.state)
        arguments = {} if given is None else {"num_classes": len(given)}
        module = timm.create_model(name.removeprefix(PREFIX), pretrained=False, **arguments)
        file = load_state(module, file, name, Classes(module.num_classes, given is not None))
        weights, digest = str(file), file.sha256
    config = resolve_model_data_config(module)
    own = _categories(module)
    info = describe(name)
    transform: Transform = PilTransform(create_transform(**config, is_training=False))
    size = "x".join(str(side) for side in config["input_size"][1:])
    if spec.input is not None:
        transform = made = with_input(_preprocess(config), spec.input)
        size = "x".join(map(str, made.output_size))
    model = ClassifierModel(
        module=module.eval(),
        with_features=TimmFeatures(module),
        width=int(getattr(module, "head_hidden_size", 0) or getattr(module, "num_features", 0)),
        transform=transform,
        preprocessing=str(transform) if spec.input else "",
        network="",
        categories=replace_categories(own, given, name),
        input_size=size,
        transform_on_device=False,
        licence=info.licence if digest is None else "of the weights file: not known",
        quality=info.quality if digest is None else "of the weights file: not measured",
    )
    return Built(model, "timm", weights, digest, versions("timm"))


@dataclass(frozen=True)
class PilTransform:
    """Applies a transform that takes a PIL image to uint8 RGB (3, H, W) on the CPU."""

    transform: Any

    def __call__(self, image: Tensor) -> Tensor:
        """The model's input for one image."""
        transformed: Tensor = self.transform(Image.fromarray(image.permute(1, 2, 0).numpy()))
        return transformed


def _preprocess(config: dict[str, Any]) -> Preprocess:
    """The evaluation transform of a model by timm's data config, as `timm.data.create_transform` makes it."""
    _, height, width = config["input_size"]
    squashed = config["crop_mode"] == "squash"
    size = (height, width) if squashed else (int(min(height, width) / config["crop_pct"]),) * 2
    return Preprocess(
        size=size,
        fit="none" if squashed else "short side",
        crop=(height, width),
        interpolation="bilinear" if config["interpolation"] == "random" else config["interpolation"],
        mean=three(list(config["mean"])),
        std=three(list(config["std"])),
    )


def _pretrained(name: str, spec: ModelSpec) -> Any:
    if spec.sha256 is not None:
        raise ModelError(
            f"sha256: timm fetches the weights of {name} by itself, so they cannot be checked against it; "
            "give `weights: FILE`, or leave sha256 out"
        )
    try:
        return timm.create_model(name.removeprefix(PREFIX), pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"timm's weights for {name} cannot be fetched from its model hub ({error}); give `weights: FILE`"
        ) from None


def _categories(module: Any) -> tuple[str, ...]:
    """ImageNet's names if the model has ImageNet's classes, else class_0, class_1, ..."""
    subset = infer_imagenet_subset(module)
    if subset is not None:
        info = ImageNetInfo(subset)
        return tuple(info.index_to_description(i) for i in range(info.num_classes()))
    return tuple(f"class_{i}" for i in range(module.num_classes))
