"""The network of a Hugging Face folder, built by transformers from its `config.json` and its tensors."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from schemas.exceptions import ModelError
from schemas.tasks import CLASSIFY, DETECT, EMBED, Task
from schemas.words import counted, value_text, with_article
from workers.models.model import versions
from workers.models.transformers.folder import CONFIG, Folder
from workers.printable import one_line, short_line

_SHOWN = 3
"""Names of tensors shown in a message."""

_REFUSED = {
    "quantization_config": "its tensors are quantized, which changes what is computed; save the model "
    "without quantization (`model.dequantize()`)",
    "transformers_weights": f"it names another file of tensors; rename that to model.safetensors and take "
    f"the key out of {CONFIG}",
}
"""Keys of `config.json` that ask for what is not done, and why."""

_WITHOUT_EFFECT = frozenset(
    (
        *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
        *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
        *("fusion_config", "kernel_config", "distributed_config", "use_kernels", "use_pretrained_backbone"),
        *("dtype", "torch_dtype", "device_map", "name_or_path", "_name_or_path", "base_model_tp_plan"),
    )
)
"""Keys of `config.json` about how and where a network is computed, which is not the folder's to say."""

_BACKBONE_ARGUMENTS = ("out_indices", "output_stride", "num_channels", "in_chans", "features_only")
"""Settings of timm's backbones that describe a network."""

_COMPARED = ("CLIPModel", "MetaClip2Model", "SiglipModel")
"""Networks of features of images and of texts, whose cosine is what counts."""

_TOKEN_FINDERS = ("GroundingDinoForObjectDetection", "MMGroundingDinoForObjectDetection")
_FINDERS = ("OwlViTForObjectDetection", "Owlv2ForObjectDetection", *_TOKEN_FINDERS)
"""Detectors of what texts say."""

_SPARE = 1_000_000
"""Numbers that a network may have beside those in its files."""


@dataclass(frozen=True)
class Kind:
    """What kind of network a folder has.

    Attributes:
        name: the class of transformers', as in `architectures`.
        task: what such a network does.
        type: that class.
    """

    name: str
    task: Task
    type: type[Any]

    @property
    def takes_texts(self) -> bool:
        """Whether it has a half for texts whose answers for images and texts can be compared here."""
        return self.name in _COMPARED or self.finds_texts

    @property
    def finds_texts(self) -> bool:
        """Whether it is a detector of what texts say."""
        return self.name in _FINDERS

    @property
    def sees_tokens(self) -> bool:
        """Whether it is a detector that looks at each token of a text together with the image."""
        return self.name in _TOKEN_FINDERS


@dataclass(frozen=True)
class Architecture(Kind):
    """What a folder's `config.json` says that it is.

    Attributes:
        config: the network's settings, transformers' own object.
    """

    config: Any

    @property
    def categories(self) -> tuple[str, ...]:
        """Class names, by class id."""
        return tuple(str(self.config.id2label[i]) for i in range(len(self.config.id2label)))

    @property
    def is_siglip(self) -> bool:
        """Whether scores are those of SigLIP, each label by itself; as transformers' pipeline tells it."""
        return "siglip" in str(self.config.model_type)

    @property
    def libraries(self) -> str:
        """What builds and computes it, with versions."""
        backbone = getattr(self.config, "backbone_config", None)
        timm = (
            ["timm"]
            if str(getattr(backbone, "model_type", self.config.model_type)).startswith("timm")
            else []
        )
        return versions("transformers", "torchvision", *timm)


@contextmanager
def quiet_and_offline() -> Iterator[Any]:
    """transformers, which neither asks the network nor prints for the length of a block.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import transformers
        from huggingface_hub import constants
        from transformers.utils import logging
    except ImportError as error:
        raise ModelError(
            f"a Hugging Face folder needs transformers, which is not installed ({error}); "
            "`pip install 'raylabel[transformers]'`, on every node of a cluster"
        ) from None
    before = constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled()
    constants.HF_HUB_OFFLINE = True
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield transformers
    finally:
        constants.HF_HUB_OFFLINE, verbosity, bars = before
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def architecture_of(folder: Folder) -> Architecture:
    """What a folder says that it is; nothing is built.

    Raises:
        ModelError: its `config.json` names no architecture that can be used, or asks for what is not done.
    """
    kind = kind_of(folder.config, folder.location)
    with quiet_and_offline():
        return Architecture(kind.name, kind.task, kind.type, _config(folder, kind.type))


def kind_of(config: Mapping[str, Any], location: str) -> Kind:
    """What kind of network a folder has, by its `config.json` alone.

    Args:
        config: what is in that.
        location: of the folder, for messages.

    Raises:
        ModelError: it names no architecture that can be used.
    """
    names = config.get("architectures")
    if not (isinstance(names, list) and names and isinstance(names[0], str)):
        raise ModelError(
            f"{CONFIG} of {location} names no architecture; add the class of the network: "
            '"architectures": ["ViTForImageClassification"]'
        )
    name, model_type = one_line(names[0]), config.get("model_type")
    with quiet_and_offline() as transformers:
        kind = getattr(transformers, name, None) if name.isidentifier() else None
        if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
            raise ModelError(
                f"{location} is {with_article(name)} ({CONFIG}, architectures), which "
                f"{versions('transformers')} does not know; allowed: one of its networks for images"
            )
        own = getattr(getattr(kind, "config_class", None), "model_type", None)
        if own != model_type:
            raise ModelError(
                f"{CONFIG} of {location} contradicts itself: {name} is of model_type {value_text(own)}, "
                f"found {value_text(model_type)}"
            )
        task = _task_of(name, kind)
        if task is None:
            raise ModelError(
                f"{location} is {with_article(name)}, which raylabel has no use for; allowed: "
                "…ForImageClassification, …ForObjectDetection, and networks of image features such as "
                "Dinov2Model, CLIPModel, SiglipVisionModel"
            )
        return Kind(name, task, kind)


def _task_of(name: str, kind: Any) -> Task | None:
    """What a network of transformers' does; None if it is none of what raylabel has tables for."""
    from transformers.models.auto import modeling_auto as known

    takes_images = kind.main_input_name == "pixel_values"
    if takes_images and name in _names(known.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()):
        return CLASSIFY
    detectors = _names(known.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES.values())
    if name in _FINDERS or (takes_images and name in detectors):
        return DETECT
    gives_features = takes_images or hasattr(kind, "get_image_features")
    return EMBED if gives_features and name.endswith(("Model", "ModelWithProjection")) else None


def _names(values: Iterable[str | tuple[str, ...]]) -> set[str]:
    return {name for value in values for name in ((value,) if isinstance(value, str) else value)}


def _config(folder: Folder, kind: Any) -> Any:
    """The settings of a folder's network as transformers' own object.

    Raises:
        ModelError: transformers refuses them, or they ask for what is not done.
    """
    where = f"{CONFIG} of {folder.location}"
    settings = _with_own_backbone(_clean(folder.config, where), where)
    _assert_no_more_layers(settings, len(folder.tensors), where)
    try:
        config = kind.config_class.from_dict(settings)
    except Exception as error:  # transformers checks settings by many means
        raise ModelError(
            f"{where} is refused by {versions('transformers')}: {short_line(str(error), 300)}"
        ) from None
    if set(config.id2label) != set(range(len(config.id2label))):
        raise ModelError(
            f"{where}: id2label names {counted(len(config.id2label), 'class', 'classes')}, but not 0 to "
            f"{len(config.id2label) - 1}; give each class id its name"
        )
    return config


def _clean(settings: Any, where: str) -> Any:
    """Settings without what only says how to compute a network.

    Raises:
        ModelError: a key asks for what is not done.
    """
    match settings:
        case dict():
            for key, why in _REFUSED.items():
                if settings.get(key):
                    raise ModelError(f"{where} has {key}: {why}")
            return {k: _clean(v, where) for k, v in settings.items() if k not in _WITHOUT_EFFECT}
        case list():
            return [_clean(value, where) for value in settings]
        case _:
            return settings


def _with_own_backbone(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Settings whose backbone is described by them, not by a name that transformers looks up in its Hub.

    Releases before 5 wrote the name of timm's backbone beside its arguments.

    Raises:
        ModelError: the backbone is a model of a hub.
    """
    described = settings.get("backbone_config")
    name = described.get("backbone") if isinstance(described, dict) else settings.get("backbone")
    if name is None:
        return settings
    by_timm = described is not None or settings.get("use_timm_backbone", True)
    if not by_timm or not isinstance(name, str) or ":" in name or "/" in name:
        raise ModelError(
            f"{where}: its backbone {short_line(str(name))!r} is a model elsewhere, and nothing is "
            "downloaded; load the model where it was trained, with transformers 5, and save it again: its "
            "configuration then describes the backbone (backbone_config)"
        )
    arguments = settings.get("backbone_kwargs")
    if described is not None or not isinstance(arguments, dict) or not arguments:
        return settings
    kept = {key: arguments[key] for key in _BACKBONE_ARGUMENTS if key in arguments}
    rest = {
        k: v for k, v in settings.items() if k not in ("backbone", "backbone_kwargs", "use_timm_backbone")
    }
    return {**rest, "backbone_config": {"model_type": "timm_backbone", "backbone": name, **kept}}


def _assert_no_more_layers(settings: Any, tensors: int, where: str) -> None:
    """Refuses settings with more layers than there are tensors: building them could take for ever."""
    values = settings.items() if isinstance(settings, dict) else []
    for key, value in values:
        numbers = value if isinstance(value, list) else [value]
        counts = [n for n in numbers if isinstance(n, int)]
        if any(word in key for word in ("layers", "depth", "blocks")) and max(counts, default=0) > max(
            tensors, 64
        ):
            raise ModelError(f"{where}: {key} is {value}, but there are only {counted(tensors, 'tensor')}")
        _assert_no_more_layers(value, tensors, where)


def load_network(
    folder: Folder, architecture: Architecture, change: Callable[[nn.Module], None] = lambda _: None
) -> nn.Module:
    """A folder's network in float32 on the CPU, in eval mode, with the tensors of its files.

    Args:
        folder: the folder.
        architecture: its own.
        change: gets the network before its tensors are copied into memory; it may take parts out.

    Raises:
        ModelError: the tensors are not those of such a network.
    """
    without = {"add_pooling_layer": False} if lacks_pooler(folder, architecture) else {}
    with quiet_and_offline():
        try:
            _assert_size(folder, architecture, without)
            network, found = architecture.type.from_pretrained(
                str(folder.path),
                config=architecture.config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are refused below, in a sentence
                output_loading_info=True,
                **without,
            )
        except ModelError:
            raise
        except Exception as error:  # transformers, timm and torch raise anything
            raise ModelError(
                f"{folder.location} cannot be loaded as {with_article(architecture.name)}: "
                f"{type(error).__name__}: {short_line(str(error), 300)}"
            ) from None
    _assert_all_taken(folder, architecture, network, found)
    change(network)
    _take_from_disk(network)
    module: nn.Module = network.eval().requires_grad_(False)
    return module


def _take_from_disk(network: nn.Module) -> None:
    """Copies tensors into memory: safetensors maps a file, which somebody may write to while it is used."""
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()


def lacks_pooler(folder: Folder, architecture: Architecture) -> bool:
    """Whether a folder has no tensors of a pooler, of a network that may have one or not."""
    optional = "add_pooling_layer" in inspect.signature(architecture.type.__init__).parameters
    return optional and not any("pooler" in name for name in folder.tensors)


def _assert_size(folder: Folder, architecture: Architecture, arguments: dict[str, Any]) -> None:
    """Refuses a network far larger than its files, before memory is taken for it."""
    with torch.device("meta"):
        described = sum(p.numel() for p in architecture.type(architecture.config, **arguments).parameters())
    found = sum(map(prod, folder.tensors.values()))
    if described > 2 * found + _SPARE:
        raise ModelError(
            f"{CONFIG} of {folder.location} describes a network of {described:,} numbers, but its files hold "
            f"{found:,}; they are not of one model"
        )


def _assert_all_taken(
    folder: Folder, architecture: Architecture, network: Any, found: dict[str, Any]
) -> None:
    """Refuses files whose tensors are not exactly the network's.

    Left over may be what is no number that was trained: positions and counts, which newer releases compute.
    """
    own = network.state_dict()
    counts = {name for name, tensor in own.items() if not tensor.is_floating_point()}
    problems = {
        "missing": sorted(set(found["missing_keys"]) - counts),
        "unexpected": sorted(name for name in found["unexpected_keys"] if not _is_computed(name)),
        "of another shape": sorted(str(key[0]) for key in found["mismatched_keys"]),
        "that cannot be read": sorted(map(str, found.get("error_msgs") or ())),
    }
    said = "; ".join(
        f"{counted(len(names), 'tensor')} {what} ({one_line(', '.join(names[:_SHOWN]))}"
        f"{', …' if len(names) > _SHOWN else ''})"
        for what, names in problems.items()
        if names
    )
    if said:
        raise ModelError(
            f"the tensors in {folder.location} are not those of {with_article(architecture.name)} as "
            f"{CONFIG} describes it: {said}"
        )


def _is_computed(name: str) -> bool:
    return name.endswith(("position_ids", "num_batches_tracked", "relative_position_index"))
