"""Pictures of coloured patches on grey, and a detector that finds each of them exactly."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tests.poison import COLOURS

if TYPE_CHECKING:
    from workers.models.model import DetectorModel

CLASSES = tuple(name for name in COLOURS if name != "grey")
"""Of the detector, the surest first."""

Patch = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels."""


def write_picture(file: Path, patches: dict[str, Patch], size: tuple[int, int] = (96, 64)) -> None:
    """Writes a grey picture, width and height as of `size`, with a patch of each of some colours."""
    pixels = np.full((size[1], size[0], 3), COLOURS["grey"], np.uint8)
    for colour, (x1, y1, x2, y2) in patches.items():
        pixels[y1:y2, x1:x2] = COLOURS[colour]
    Image.fromarray(pixels).save(file)


def patches() -> "DetectorModel":
    """A detector of patches: the box of each colour, with a score by the colour."""
    import torch

    from workers.models.model import DetectorModel, as_is

    class Patches(torch.nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            return [self.found(image) for image in images]

        def found(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            boxes, labels = [], []
            for number, name in enumerate(CLASSES):
                colour = torch.tensor(COLOURS[name], dtype=image.dtype)[:, None, None]
                y, x = (image == colour).all(dim=0).nonzero(as_tuple=True)
                if len(x):
                    boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
                    labels.append(number)
            return {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "scores": torch.tensor([0.9 - 0.05 * label for label in labels]),
                "labels": torch.tensor(labels, dtype=torch.int64),
            }

    return DetectorModel(module=Patches(), transform=as_is, categories=CLASSES)
