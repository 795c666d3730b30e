"""The built-in detector: NanoDet-g, COCO-80, 416 px, with weights shipped with raylabel.

Upstream: RangiLyu/nanodet, `config/legacy_v0.x_configs/nanodet-g.yml` (Apache-2.0).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d
from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize

from schemas.models import ModelInfo
from schemas.tasks import DETECT, ModelSpec
from workers.models.folding import grouped_nms
from workers.models.model import Built, DetectorModel, as_is, require_finite, versions
from workers.models.settings import given_categories, replace_categories
from workers.models.source import BuiltIn
from workers.models.weights import Classes, load_state, read_weights

NAME = "nanodet_g"
WEIGHTS = Path(__file__).parents[1] / "weights" / "nanodet_g_coco80_416_fp16.safetensors"
SHA256 = "cbc83769efad33693476d084081b36ecb3745e1af0a43436df840d80485de79d"
SIZE = 416
INPUT_SIZE = f"{SIZE}x{SIZE}"
STRIDES = (8, 16, 32)
BINS = 11
LICENCE = "Apache-2.0 (network), MIT (converted weights); see NOTICE"
QUALITY = "published: AP 0.229 on COCO val2017; measured: AP 0.325 on 64 images of COCO train2017"


@dataclass(frozen=True)
class Fit:
    """Turns uint8 RGB (3, H, W) into normalised float BGR, fitted into (3, 416, 416); zeros right and below.

    Resized as uint8, bilinear and antialiased: a tenth of the time of the float resize, and within 1 of 255
    of Pillow.
    """

    size: int = SIZE
    interpolation: str = "bilinear"
    mean_bgr: tuple[float, float, float] = (103.53, 116.28, 123.675)
    std_bgr: tuple[float, float, float] = (57.375, 57.12, 58.395)

    def __call__(self, image: Tensor) -> Tensor:
        """The network's input for one image."""
        height, width = image.shape[-2:]
        scale = self.scale(width, height)
        fitted = [max(1, round(height * scale)), max(1, round(width * scale))]
        bgr = resize(image, fitted, InterpolationMode(self.interpolation), antialias=True).flip(0)
        mean, std = (bgr.new_tensor(x, dtype=torch.float32) for x in (self.mean_bgr, self.std_bgr))
        padded: Tensor = bgr.new_zeros((3, self.size, self.size), dtype=torch.float32)
        # in place: new tensors for the intermediate results would cost as much as the resize
        padded[:, : fitted[0], : fitted[1]].copy_(bgr).sub_(mean[:, None, None]).div_(std[:, None, None])
        return padded

    def scale(self, width: int, height: int) -> float:
        """Input pixels per image pixel."""
        return min(self.size / width, self.size / height)


class NanoDet(nn.Module):
    """NanoDet-g: fits images, runs its network, decodes and suppresses boxes.

    Takes a list of n images, uint8 RGB (3, height, width), of any sizes. Returns torchvision's list of n
    dictionaries, boxes in pixels of the image and inside it. `score_thresh`, `nms_thresh` and
    `detections_per_img` are torchvision's names; see `DetectorModel` for `nms_groups`.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.score_thresh = 0.05
        self.nms_thresh = 0.6
        self.detections_per_img = 100
        self.nms_groups: Tensor | None = None  # see DetectorModel
        self.classes = classes
        self.fit = Fit()
        self.network = Network(classes + 4 * BINS)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """The objects of each image.

        Raises:
            FloatingPointError: the network returned NaN or infinity.
        """
        levels = self.network(torch.stack([self.fit(image) for image in images]))
        require_finite(levels)
        answers = torch.cat([level.float().flatten(2) for level in levels], dim=2)
        cells = torch.cat([_cells(level, stride) for level, stride in zip(levels, STRIDES, strict=True)])
        return [self._objects(answer.T, cells, image) for answer, image in zip(answers, images, strict=True)]

    def _objects(self, answers: Tensor, cells: Tensor, image: Tensor) -> dict[str, Tensor]:
        """The objects in one image that score enough and that no better box of their class overlaps.

        Args:
            answers: (cells, classes + 4 * BINS), of all strides.
            cells: (cells, 3), see `_cells`.
            image: (3, height, width); only its size is used.
        """
        scores = answers[:, : self.classes].sigmoid()
        candidates, labels = torch.where(scores > self.score_thresh)
        scores, boxes = (
            scores[candidates, labels],
            _boxes(answers[candidates, self.classes :], cells[candidates]),
        )
        height, width = image.shape[-2:]
        boxes = clip_boxes_to_image(boxes / self.fit.scale(width, height), (height, width))
        keep = grouped_nms(boxes, scores, labels, self.nms_groups, self.nms_thresh)[: self.detections_per_img]
        return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}


class Network(nn.Module):
    """NanoDet-g's network: CSP backbone, PAN neck, one head per stride; BatchNorm is folded.

    Takes a batch (n, 3, h, w) and returns the heads' raw outputs, (n, channels, h / stride, w / stride) for
    each of the `STRIDES`.

    Args:
        channels: of each output: one for each class, then BINS for each side of a box.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = _conv(3, 32, stride=2)
        self.stages = nn.ModuleList(
            [_Stage(32, 32, 1, 1), _Stage(64, 64, 2, 2), _Stage(128, 128, 2, 2), _Stage(256, 256, 2, 3)]
        )
        self.lat = nn.ModuleList(nn.Conv2d(inputs, 128, 1) for inputs in (128, 256, 512))
        self.head = nn.ModuleList(
            nn.Sequential(_conv(128, 128), nn.Conv2d(128, channels, 1)) for _ in STRIDES
        )

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        """The raw outputs, finest stride first."""
        x = max_pool2d(self.stem(batch), 3, stride=2, padding=1)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        low, middle, high = (lat(x) for lat, x in zip(self.lat, features[1:], strict=True))
        middle = middle + _resized(high, middle)
        low = low + _resized(middle, low)
        middle = middle + _resized(low, middle)
        high = high + _resized(middle, high)
        return tuple(head(x) for head, x in zip(self.head, (low, middle, high), strict=True))


class _Stage(nn.Module):
    """Start conv (with the stage's stride), units, end conv; returns [end, start], twice the channels."""

    def __init__(self, channels_in: int, channels: int, stride: int, units: int) -> None:
        super().__init__()
        self.start = _conv(channels_in, channels, stride=stride)
        self.units = nn.Sequential(*(_Unit(channels) for _ in range(units)))
        self.end = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, h, w) to (n, 2 * channels, h / stride, w / stride)."""
        start = self.start(x)
        return torch.cat([self.end(self.units(start)), start], dim=1)


class _Unit(nn.Sequential):
    """Two convs with half the channels each; returns [second, first]."""

    def __init__(self, channels: int) -> None:
        super().__init__(_conv(channels, channels // 2), _conv(channels // 2, channels // 2))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) to the same shape."""
        first = self[0](x)
        return torch.cat([self[1](first), first], dim=1)


def _conv(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, 3, stride, padding=1), nn.LeakyReLU(0.1))


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, size=like.shape[-2:], mode="bilinear")


def _cells(level: Tensor, stride: int) -> Tensor:
    """[x, y, stride] of the cells of a level, centres in input pixels, row by row, (rows * columns, 3)."""
    rows, columns = level.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(rows, device=level.device), torch.arange(columns, device=level.device), indexing="ij"
    )
    x, y = ((axis.flatten() + 0.5) * stride for axis in (x, y))
    return torch.stack([x, y, torch.full_like(x, stride)], dim=1)


def _boxes(bins: Tensor, cells: Tensor) -> Tensor:
    """Boxes (n, 4) in input pixels, from their cells and the bins (n, 4 * BINS) of their sides' distances."""
    distances = bins.reshape(-1, 4, BINS).softmax(2) @ torch.arange(BINS, device=bins.device).float()
    centre, stride = cells[:, :2], cells[:, 2:]
    left_top, right_bottom = (distances * stride).chunk(2, dim=1)
    return torch.cat([centre - left_top, centre + right_bottom], dim=1)


def coco_names() -> tuple[str, ...]:
    """The 80 names of COCO in their usual order."""
    names = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["categories"]
    return tuple(name for name in names if name not in ("__background__", "N/A"))


def build_detector(spec: ModelSpec) -> Built[DetectorModel]:
    """NanoDet-g with the shipped weights, or those of a file with the same names.

    Raises:
        ModelError: the weights cannot be read or do not fit.
    """
    own, given = coco_names(), given_categories(spec)
    categories = replace_categories(own, given, NAME) if spec.weights is None else given or own
    module = NanoDet(len(categories))
    if spec.weights is None:
        file = read_weights(str(WEIGHTS), spec.sha256 or SHA256)
    else:
        file = read_weights(spec.weights, spec.sha256, spec.state)
    file = load_state(
        module.network, file, NAME, Classes(len(categories), given is not None, beside=4 * BINS)
    )
    model = DetectorModel(
        module=module,
        transform=as_is,
        preprocessing=repr(module.fit),
        network="network",
        categories=categories,
        input_size=INPUT_SIZE,
        licence=LICENCE,
        quality=QUALITY,
    )
    weights = str(file) if spec.weights else WEIGHTS.name
    return Built(model, "built in", weights, file.sha256, "raylabel, " + versions("torchvision"))


SOURCE = BuiltIn(
    DETECT,
    ModelInfo(
        name=NAME,
        task=DETECT.name,
        source="built in",
        input_size=INPUT_SIZE,
        categories=80,
        licence=LICENCE,
        quality=QUALITY,
    ),
    build_detector,
)
"""The one model of this file, for the registry."""
