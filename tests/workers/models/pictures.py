"""Images and models that the tests of the models share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from schemas.images import DecodedImage

ROOT = Path(__file__).parents[3]
PHOTOS = ROOT / "infra" / "demo" / "photos"
EVAL = ROOT.parent / "shared" / "eval"
CPU = torch.device("cpu")


@contextmanager
def one_thread() -> Iterator[None]:
    """As in an actor: a third of the time that two threads take where other tests want the cores too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def opened(path: Path, size: tuple[int, int] | None = None) -> DecodedImage:
    """One photo, decoded by Pillow; `size` is (width, height) to shrink it to."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
        return DecodedImage(np.array(rgb.resize(size) if size else rgb), str(image.format), 1, "RGB", 1)


def photos() -> dict[str, DecodedImage]:
    """The seven demo photos by file name."""
    return {path.name: opened(path) for path in sorted(PHOTOS.iterdir()) if path.suffix in (".jpg", ".png")}


def small_photos() -> list[DecodedImage]:
    """The demo photos, shrunk to shapes of which some come twice."""
    sizes = [(160, 120), (120, 160), (160, 120), (200, 90), (97, 131), (120, 160), (64, 64)]
    names = sorted(photos())
    return [opened(PHOTOS / name, size) for name, size in zip(names, sizes, strict=True)]


def noise(seed: int, height: int = 40, width: int = 60) -> DecodedImage:
    """An image of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return DecodedImage(pixels, "PNG", 1, "RGB", 1)


def planes(image: DecodedImage) -> torch.Tensor:
    """What torchvision's documentation hands to a transform: uint8 (3, height, width)."""
    return torch.from_numpy(image.pixels).permute(2, 0, 1).contiguous()


def calibrated(module: Any, inputs: Any) -> Any:
    """A random network with batch-norm statistics of real photos, so that its answers depend on them."""
    norms = [m.train() for m in module.eval().modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        module(inputs)
    return module.eval()
