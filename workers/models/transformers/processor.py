"""The image processor of a Hugging Face folder: transformers' own, from its `preprocessor_config.json`."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from schemas.exceptions import ModelError
from schemas.tasks import MAX_SIDE
from schemas.words import value_text
from workers.models.model import versions
from workers.models.runtime import PROBES
from workers.models.transformers.folder import PREPROCESSOR, Folder
from workers.models.transformers.network import Architecture, quiet_and_offline
from workers.printable import short_line

_NAMES = re.compile(r"\w+(ImageProcessor(Fast|Pil)?|FeatureExtractor)", re.ASCII)
"""What image processors are called, in this release and in older ones."""

_INPUTS = {"pixel_values", "pixel_mask"}
"""What networks get that are given one image as a picture."""


@dataclass(frozen=True)
class Processor:
    """Turns images into the inputs of a network, each by itself, so that no batch changes them.

    Attributes:
        own: transformers' image processor.
        shape: height and width of all inputs, which then have no padding; None: they follow from the image's.
    """

    own: Any
    shape: tuple[int, int] | None

    def __call__(self, image: Tensor) -> Tensor:
        """The input of an image, uint8 RGB (3, height, width): float32 (3, h, w)."""
        pixels, _ = self.with_mask(image)
        return pixels

    def with_mask(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, and int64 (h, w) that is 0 where the input is padding; None if there is no padding."""
        inputs = _inputs(self.own, image)
        mask = inputs.get("pixel_mask")
        padded = mask is not None and not bool(mask.all())
        return inputs["pixel_values"][0].to(torch.float32), mask[0] if padded else None

    @property
    def on_device(self) -> bool:
        """Whether it takes tensors on a GPU."""
        return str(self.own.backend) == "torchvision"

    def size(self) -> str:
        """Of an input, as text: "224x224", or by which rule it follows from the image's."""
        if self.shape is not None:
            return "x".join(map(str, self.shape))
        size = dict(self.own.size)
        if size.get("shortest_edge") and size.get("longest_edge"):
            return f"short side {size['shortest_edge']}, long side at most {size['longest_edge']}"
        return ", ".join(f"{key} {value}" for key, value in size.items() if value)

    def text(self) -> str:
        """All settings that decide an input."""
        settings = {key: value for key, value in self.own.to_dict().items() if not key.startswith("_")}
        for name in ("image_processor_type", "processor_class", "transformers_version"):
            settings.pop(name, None)
        if settings.get("resample") is not None:
            settings["resample"] = Image.Resampling(settings["resample"]).name.lower()
        values = ", ".join(f"{key}: {value_text(settings[key])}" for key in sorted(settings))
        return f"{type(self.own).__name__} ({self.own.backend}) {values}"


def load_processor(folder: Folder, architecture: Architecture) -> Processor:
    """The image processor of a folder: torchvision's kind, where transformers has one, else Pillow's.

    Raises:
        ModelError: its settings name no image processor, are refused by it, or it makes other inputs than a
            picture.
    """
    where = f"{PREPROCESSOR} of {folder.location}"
    settings = folder.preprocessor
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if name is not None and not _NAMES.fullmatch(str(name)):
        raise ModelError(
            f"{where}: image_processor_type is {short_line(str(name))!r}; allowed: an image processor of "
            "transformers', such as ViTImageProcessor"
        )
    for key in ("size", "crop_size", "pad_size"):
        sides = settings.get(key)
        for side in sides.values() if isinstance(sides, dict) else [sides]:
            if isinstance(side, int | float) and not 1 <= side <= MAX_SIDE:
                raise ModelError(f"{where}: {key} is {sides}; allowed: sides of 1 to {MAX_SIDE:,} pixels")
    with quiet_and_offline() as transformers:
        try:
            own = transformers.AutoImageProcessor.from_pretrained(
                str(folder.path), config=architecture.config, local_files_only=True, trust_remote_code=False
            )
            probes = [_inputs(own, torch.zeros(3, *size, dtype=torch.uint8)) for size in PROBES]
        except Exception as error:  # transformers and torchvision raise anything
            raise ModelError(
                f"{where} cannot be used: {type(error).__name__}: {short_line(str(error), 300)}"
            ) from None
    if name is not None and _base(type(own).__name__) != _base(str(name)):
        raise ModelError(
            f"{where}: image_processor_type is {name}, which {versions('transformers')} does not know; a "
            f"newer one may, or write {type(own).__name__} if its settings are meant"
        )
    pixels = [probe.get("pixel_values") for probe in probes]
    if set(probes[0]) - _INPUTS or not all(isinstance(each, Tensor) and each.ndim == 4 for each in pixels):
        raise ModelError(
            f"{where}: {type(own).__name__} makes {', '.join(sorted(probes[0]))} of an image; allowed: "
            "a processor that makes one picture, pixel_values (3, height, width)"
        )
    shapes = {tuple(each.shape[-2:]) for each in pixels}
    padded = any("pixel_mask" in probe and not bool(probe["pixel_mask"].all()) for probe in probes)
    return Processor(own, shapes.pop() if len(shapes) == 1 and not padded else None)


def _base(name: str) -> str:
    """The name of an image processor, whatever computes it and whatever it was called in older releases."""
    return re.sub(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", name)


def _inputs(own: Any, image: Tensor) -> Any:
    """What an image processor makes of one image, uint8 RGB (3, height, width): tensors by name."""
    return own(images=[image], return_tensors="pt", input_data_format="channels_first")
