"""torchvision's classification and detection models, with official weights or a user's file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import models
from torchvision.models import WeightsEnum

from schemas.exceptions import ModelError
from schemas.models import ModelInfo
from schemas.tasks import CLASSIFY, DETECT, ModelSpec, Task
from workers.models.checkpoints import State
from workers.models.embedder import LastInput
from workers.models.model import Built, ClassifierModel, DetectorModel, Transform, require_finite, versions
from workers.models.preprocess import CLASSIFIER_KEYS, Preprocess, three, with_input
from workers.models.settings import given_categories, replace_categories
from workers.models.source import Source
from workers.models.weights import Classes, WeightsFile, assert_no_state, load_state, read_weights

PREFIX = "torchvision/"
BACKGROUND = "__background__"

_MODULES = {CLASSIFY: models, DETECT: models.detection}

_INPUT_SIZES = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": "short side 320, long side at most 640",
    "ssd300_vgg16": "300x300",
    "ssdlite320_mobilenet_v3_large": "320x320",
}
_WITHOUT_BACKGROUND = ("retinanet", "fcos")
"""Families that score each class separately (sigmoid) and so have no background class."""

_EXTRA_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},  # else it warns that the default will change
    "inception_v3": {"init_weights": False},
}


class TorchvisionModels(Source):
    """Every classification and detection model of the installed torchvision.

    Its mask and keypoint R-CNN return boxes only.
    """

    def names(self, task: Task) -> list[str]:
        """See `Source.names`; `torchvision/` may precede a name."""
        names: list[str] = models.list_models(module=_MODULES[task]) if task in _MODULES else []
        return names

    def has(self, model: str, task: Task) -> bool:
        """Whether torchvision has the model."""
        return model.removeprefix(PREFIX) in self.names(task)

    def input_keys(self, spec: ModelSpec) -> tuple[str, ...]:
        """See `Source.input_keys`."""
        return () if spec.task == DETECT else CLASSIFIER_KEYS

    def describe(self, name: str, task: Task) -> ModelInfo:
        """See `Source.describe`; from torchvision's metadata."""
        official = models.get_model_weights(name).DEFAULT
        return ModelInfo(
            name=name,
            task=task.name,
            source="torchvision",
            input_size=_input_size(name, official, task),
            categories=len(official.meta["categories"]),
            licence=_licence(official),
            quality=_quality(official),
        )

    def build(self, spec: ModelSpec) -> Built[Any]:
        """See `build_classifier` and `build_detector`."""
        builder = build_detector if spec.task == DETECT else build_classifier
        return builder(spec.model.removeprefix(PREFIX), spec)


def build_classifier(name: str, spec: ModelSpec) -> Built[ClassifierModel]:
    """A classification model of torchvision.

    Official weights have their own transforms and class names. A user's file gets the transforms of the
    model's DEFAULT weights, and as many classes as the spec has `categories`; a file with the hash of
    official weights is treated as these.

    Raises:
        ModelError: the weights cannot be read or do not fit.
    """
    parts = _parts(name, spec, given_categories(spec))
    both = LastInput(parts.module)
    transform: Transform = _Preset(parts.preset.transforms())
    size = _input_size(name, parts.preset, CLASSIFY)
    if spec.input is not None:
        transform = made = with_input(_preprocess(parts.preset), spec.input)
        size = "x".join(map(str, made.output_size))
    model = ClassifierModel(
        module=parts.module,
        with_features=both,
        width=both.width,
        transform=transform,
        preprocessing=str(transform) if spec.input else repr(parts.preset.transforms()),
        network="",
        categories=parts.categories,
        input_size=size,
        transform_on_device=spec.input is None,
        licence=parts.licence,
        quality=parts.quality,
    )
    return parts.built(model)


def build_detector(name: str, spec: ModelSpec) -> Built[DetectorModel]:
    """A detection model of torchvision. The module resizes, so its boxes are in pixels of the image.

    Class ids are the model's own. A user's `categories` are without background: if the family has a
    background class (R-CNN, SSD), `__background__` is added as class 0, and the model has one output more;
    RetinaNet and FCOS have none and use the names unchanged.

    Raises:
        ModelError: the weights cannot be read or do not fit.
    """
    parts = _parts(name, spec, _with_background(name, given_categories(spec)))
    _drop_masks_and_keypoints(parts.module)
    _refuse_non_finite(parts.module)
    transform = parts.preset.transforms()
    model = DetectorModel(
        module=parts.module,
        transform=_Preset(transform),
        categories=parts.categories,
        input_size=_input_size(name, parts.preset, DETECT),
        preprocessing=f"{transform!r}, {parts.module.transform!r}",
        channels_last=False,
        mixes_shapes=False,  # torchvision pads a batch to its largest image, which moves boxes near borders
        licence=parts.licence,
        quality=parts.quality,
    )
    return parts.built(model)


@dataclass(frozen=True)
class _Parts:
    """A module with its weights loaded, and what belongs to the weights.

    Attributes:
        module: the network in eval mode.
        preset: the official weights whose transforms are used.
        official: whether `preset` are also the weights that were loaded.
        file: the loaded weights file.
        categories: class names.
    """

    module: Any  # an nn.Module whose attributes differ by family
    preset: WeightsEnum
    official: bool
    file: WeightsFile
    categories: tuple[str, ...]

    @property
    def licence(self) -> str:
        return _licence(self.preset) if self.official else "of the weights file: not known"

    @property
    def quality(self) -> str:
        return _quality(self.preset) if self.official else "of the weights file: not measured"

    def built(self, model: Any) -> Built[Any]:
        weights = str(self.preset) if self.official else str(self.file)
        return Built(model, "torchvision", weights, self.file.sha256, versions("torchvision"))


@dataclass(frozen=True)
class _Preset:
    """torchvision's transforms on a contiguous (planar) image: they are slower on a channels-last one."""

    transforms: Any

    def __call__(self, image: Tensor) -> Tensor:
        transformed: Tensor = self.transforms(image.contiguous())
        return transformed


def _preprocess(preset: WeightsEnum) -> Preprocess:
    """The transforms of official weights of a classifier, resized by Pillow."""
    made = preset.transforms()
    return Preprocess(
        size=(made.resize_size[0],) * 2,
        fit="short side",
        crop=(made.crop_size[0],) * 2,
        interpolation=made.interpolation.value,
        mean=three(made.mean),
        std=three(made.std),
    )


def _parts(name: str, spec: ModelSpec, given: tuple[str, ...] | None) -> _Parts:
    """Builds the module of a spec and loads its weights."""
    known = models.get_model_weights(name)
    preset = _named(name, known, spec.weights)
    if preset is not None:
        assert_no_state(spec, f"{preset}, which hold one set of tensors")
        return _official(name, preset, read_weights(str(_downloaded(name, preset)), spec.sha256), given)
    file = read_weights(str(spec.weights), spec.sha256, spec.state)
    preset = next((weights for weights in known if _is_official(file, weights)), None)
    if preset is not None:
        return _official(name, preset, file, given)
    categories = given or tuple(known.DEFAULT.meta["categories"])
    arguments = dict(_EXTRA_ARGUMENTS.get(name, {}))
    if name in models.list_models(module=models.detection):
        arguments["weights_backbone"] = None
    module = models.get_model(name, weights=None, num_classes=len(categories), **arguments)
    try:
        unnamed = categories[0] == BACKGROUND and not name.startswith(_WITHOUT_BACKGROUND)
        classes = Classes(len(categories), given is not None, background=int(unnamed))
        file = load_state(module, file, name, classes)
    except ModelError as error:
        raise ModelError(f"{error}{_background_hint(name, module, file)}") from None
    return _Parts(module.eval(), known.DEFAULT, False, file, categories)


def _official(name: str, preset: WeightsEnum, file: WeightsFile, given: tuple[str, ...] | None) -> _Parts:
    """Builds a model with torchvision's builder for official weights.

    The builder does more than load them (batch-norm eps, DenseNet's old key names, Inception's inputs), so it
    runs, but gets the tensors that were read here in place of a download.
    """
    categories = replace_categories(tuple(preset.meta["categories"]), given, name)
    with _in_place_of_download(preset, file.state):
        module = models.get_model(name, weights=preset, progress=False)
    return _Parts(module.eval(), preset, True, file, categories)


@contextmanager
def _in_place_of_download(preset: WeightsEnum, state: State) -> Iterator[None]:
    """Makes official weights return these tensors, for the length of a block."""
    preset.get_state_dict = lambda **_: state
    try:
        yield
    finally:
        del preset.get_state_dict


def _named(name: str, known: type[WeightsEnum], weights: str | None) -> WeightsEnum | None:
    """The official weights that a spec names, `DEFAULT` if it names none; None if it names a file.

    Raises:
        ModelError: it is neither the name of official weights nor a file name.
    """
    member = (weights or "DEFAULT").removeprefix(f"{known.__name__}.")
    if member in known.__members__:
        return known[member]
    if not re.search(r"[./]", member):
        raise ModelError(
            f"weights: {name} has no official weights {weights!r}, only {', '.join(known.__members__)}; "
            "a file is told by a '.' or a '/' in its name"
        )
    return None


def _downloaded(name: str, preset: WeightsEnum) -> Path:
    """The file of official weights in torch's cache; downloaded if it is missing.

    Raises:
        ModelError: it cannot be downloaded.
    """
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / preset.url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(preset.url, str(path), _hash_in(preset.url), progress=False)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"the official weights {preset} of {name} cannot be fetched from {preset.url} ({error}) "
                f"and are not in {path.parent}; give `weights: FILE`"
            ) from None
    return path


def _is_official(file: WeightsFile, preset: WeightsEnum) -> bool:
    prefix = _hash_in(preset.url)
    return prefix is not None and file.sha256.startswith(prefix)


def _hash_in(url: str) -> str | None:
    """The first digits of the sha256 that torchvision puts into its file names: resnet50-0676ba61.pth."""
    match = re.search(r"-([0-9a-f]{8,})\.", url.rpartition("/")[2])
    return match[1] if match else None


def _with_background(name: str, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if given is None or given[0] == BACKGROUND or name.startswith(_WITHOUT_BACKGROUND):
        return given
    return (BACKGROUND, *given)


def _background_hint(name: str, module: Any, file: WeightsFile) -> str:
    """What to try where weights of a family without a background class were trained with one; else ""."""
    if not name.startswith(_WITHOUT_BACKGROUND):
        return ""
    head = "head.classification_head.cls_logits.weight"
    anchors = module.head.classification_head.num_anchors
    given = next((tensor for key, tensor in file.state.items() if key.endswith(head)), None)
    outputs = module.state_dict()[head].shape[0]
    if given is None or given.shape[0] != outputs + anchors:
        return ""
    return (
        f". The file has one class more: if its training counted the background, as most tutorials do, put "
        f"{BACKGROUND} first in `categories`"
    )


def _drop_masks_and_keypoints(module: Any) -> None:
    """Removes the mask and keypoint heads of an R-CNN, whose results would be discarded."""
    for part in ("mask", "keypoint"):
        if hasattr(module, "roi_heads") and getattr(module.roi_heads, f"{part}_roi_pool", None) is not None:
            setattr(module.roi_heads, f"{part}_roi_pool", None)


def _refuse_non_finite(module: Any) -> None:
    """Makes the heads raise FloatingPointError on NaN or infinity, which torchvision drops as "no object"."""
    if hasattr(module, "roi_heads"):
        heads = [module.rpn.head, module.roi_heads.box_predictor]
    else:
        heads = [module.head]
    for head in heads:
        head.register_forward_hook(lambda _module, _inputs, output: require_finite(_tensors(output)))


def _tensors(output: Any) -> Iterator[Tensor]:
    """All tensors in a head's output: a tensor, or nested lists, tuples or dictionaries of tensors."""
    if isinstance(output, Tensor):
        yield output
    else:
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)


def _input_size(name: str, preset: WeightsEnum, task: Task) -> str:
    if task == DETECT:
        return _INPUT_SIZES.get(name, "short side 800, long side at most 1333")
    (size,) = preset.transforms().crop_size
    return f"{size}x{size}"


def _licence(preset: WeightsEnum) -> str:
    return str(preset.meta.get("license", "code BSD-3-Clause; of the weights not stated, see torchvision"))


def _quality(preset: WeightsEnum) -> str:
    """The published metrics: "published: acc@1 80.858, acc@5 95.434 on ImageNet-1K"."""
    metrics = (
        ", ".join(f"{metric} {value}" for metric, value in values.items()) + f" on {data}"
        for data, values in preset.meta["_metrics"].items()
    )
    return "published: " + "; ".join(metrics)
