"""The layouts of detectors' ONNX files: how each is recognised, its input, and how its answers are read.

A new layout is a class here and an entry in `LAYOUTS`. What each export looks like was read in the code that
makes it: Ultralytics' exporter, YOLOv5's and YOLOv6's export.py, YOLOX's and RF-DETR's export, RT-DETR's and
D-FINE's export_onnx.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torchvision.ops import box_convert

from workers.models.onnx.file import OnnxFile, shape_text
from workers.models.onnx.metadata import Metadata
from workers.models.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, Size
from workers.printable import short_line

Shape = tuple[int, ...]

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
"""Strides of the grids that YOLOs predict on; the first is usual, the others are P6 and P2 models'."""

MOST_QUERIES = 1000
"""The most boxes of an answer that is final; grids have more."""


@dataclass(frozen=True)
class Seen:
    """What is known of a file when its layout is looked for.

    Attributes:
        file: the file.
        metadata: its metadata.
        size: of its input.
        shapes: those of its outputs for one image, by name.
    """

    file: OnnxFile
    metadata: Metadata
    size: Size
    shapes: Mapping[str, Shape]

    @property
    def only(self) -> Shape:
        """The shape of the only output; () where there are several."""
        return next(iter(self.shapes.values())) if len(self.shapes) == 1 else ()

    @property
    def cells(self) -> tuple[int, ...]:
        """How many cells the grids of YOLOs have in an input of this size, for each of `STRIDES`."""
        return tuple(cells_in(self.size, strides) for strides in STRIDES)


@dataclass(frozen=True)
class Match:
    """That a file may have a layout.

    Attributes:
        certain: whether it can hardly be anything else.
        why: it may be.
    """

    certain: bool
    why: str


@dataclass(frozen=True)
class Found:
    """Boxes in an image, best class each.

    Attributes:
        boxes: float32 (n, 4), [x1, y1, x2, y2] in pixels of the input.
        scores: float32 (n,).
        labels: int64 (n,).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Layout(ABC):
    """What a detector's inputs and outputs are.

    Attributes:
        names: what a job spec calls it, the first in messages.
        nms_iou: boxes of a class that overlap more are doubled, where the network leaves that to us; None: it
            does not.
        outputs: what they are, in words.
    """

    names: ClassVar[tuple[str, ...]]
    nms_iou: ClassVar[float | None] = None
    outputs: ClassVar[str]

    @abstractmethod
    def match(self, seen: Seen) -> Match | None:
        """Whether a file may have this layout, and why; None: it cannot."""

    @abstractmethod
    def classes(self, shapes: Mapping[str, Shape]) -> int | None:
        """How many classes a network with such outputs tells apart; None: they do not show it."""

    def preprocess(self, size: Size) -> Preprocess:
        """How an image becomes such an input, unless the job spec says it: by Ultralytics' `LetterBox`."""
        return Preprocess(size, "center", interpolation="linear")

    @abstractmethod
    def decode(self, outputs: Mapping[str, Tensor], least: float, size: Size, classes: int) -> Found:
        """The boxes in an image whose score exceeds `least`.

        Args:
            outputs: the network's for this image, by name, without the batch's dimension.
            least: a score.
            size: of the input.
            classes: the number of class names.
        """


class YoloV8(Layout):
    """(n, 4 + classes, places): centre, width and height in pixels; scores; no objectness."""

    names = ("yolov8", "yolov9", "yolo11", "yolov11", "yolo12", "yolov12")
    nms_iou = 0.7
    outputs = "one output (n, 4 + classes, places)"

    def match(self, seen: Seen) -> Match | None:
        """See `Layout.match`."""
        shape = seen.only
        if len(shape) != 3 or not 5 <= shape[1] < shape[2]:
            return None
        why = (
            f"one output of {shape_text(shape)}: a box and {shape[1] - 4} classes at {shape[2]:,} places"
            + (", as many as the grids of its input have" if shape[2] in seen.cells else "")
        )
        return Match(shape[2] in seen.cells or seen.metadata.task == "detect", why)

    def classes(self, shapes: Mapping[str, Shape]) -> int | None:
        """See `Layout.classes`."""
        return next(iter(shapes.values()))[1] - 4

    def decode(self, outputs: Mapping[str, Tensor], least: float, size: Size, classes: int) -> Found:  # noqa: ARG002 - the face of all
        """See `Layout.decode`."""
        (answer,) = outputs.values()
        scores, labels = answer[4:].max(dim=0)
        kept = scores > least
        return Found(_corners(answer[:4, kept].T), scores[kept], labels[kept])


class YoloV5(Layout):
    """(n, places, 5 + classes): centre, width and height in pixels; objectness; scores."""

    names: ClassVar[tuple[str, ...]] = ("yolov5", "yolov6", "yolov7")
    nms_iou = 0.45
    outputs = "one output (n, places, 5 + classes)"

    def match(self, seen: Seen) -> Match | None:
        """See `Layout.match`."""
        shape = seen.only
        if len(shape) != 3 or not 6 <= shape[2] < shape[1] or seen.metadata.task:
            return None
        anchors = shape[1] in [3 * cells for cells in seen.cells]
        why = (
            f"one output of {shape_text(shape)}: a box, an objectness and {shape[2] - 5} classes at "
            f"{shape[1]:,} "
            f"places" + (", three for each cell of its input's grids" if anchors else "")
        )
        return Match(anchors, why)

    def classes(self, shapes: Mapping[str, Shape]) -> int | None:
        """See `Layout.classes`."""
        return next(iter(shapes.values()))[2] - 5

    def decode(self, outputs: Mapping[str, Tensor], least: float, size: Size, classes: int) -> Found:  # noqa: ARG002 - the face of all
        """See `Layout.decode`."""
        (answer,) = outputs.values()
        answer = answer[answer[:, 4] > least]  # no class can have more
        scores, labels = (answer[:, 5:] * answer[:, 4:5]).max(dim=1)
        kept = scores > least
        return Found(_corners(answer[kept, :4]), scores[kept], labels[kept])


class YoloX(YoloV5):
    """(n, cells, 5 + classes) as YOLOv5's, but a box is relative to its cell; BGR, 0 to 255."""

    names: ClassVar[tuple[str, ...]] = ("yolox",)
    outputs = "one output (n, cells, 5 + classes)"

    def match(self, seen: Seen) -> Match | None:
        """See `Layout.match`; decoded ones look the same, so it is never certain."""
        shape = seen.only
        if len(shape) != 3 or shape[2] < 6 or shape[1] not in seen.cells or seen.metadata.task:
            return None
        why = (
            f"one output of {shape_text(shape)}: a box, an objectness and {shape[2] - 5} classes for each "
            "cell of its input's grids"
        )
        return Match(False, why)

    def preprocess(self, size: Size) -> Preprocess:
        """See `Layout.preprocess`; as YOLOX's `preproc`."""
        return Preprocess(size, "top-left", interpolation="linear", channels="bgr", scale=1)

    def decode(self, outputs: Mapping[str, Tensor], least: float, size: Size, classes: int) -> Found:
        """See `Layout.decode`; as YOLOX's `demo_postprocess`."""
        (answer,) = outputs.values()
        strides = next(strides for strides in STRIDES if cells_in(size, strides) == len(answer))
        cells = torch.cat([_grid(size, stride) for stride in strides])
        corner, stride = cells[:, :2], cells[:, 2:]
        boxes = torch.cat([(answer[:, :2] + corner) * stride, answer[:, 2:4].exp() * stride], dim=1)
        return super().decode({"": torch.cat([boxes, answer[:, 4:]], dim=1)}, least, size, classes)


class EndToEnd(Layout):
    """(n, boxes, 6): corners in pixels, score, class; padded with zeros, doubled boxes removed."""

    names = ("end2end", "yolov10", "yolo26")
    outputs = "one output (n, boxes, 6)"

    def match(self, seen: Seen) -> Match | None:
        """See `Layout.match`."""
        shape = seen.only
        if len(shape) != 3 or shape[2] != 6 or not 0 < shape[1] <= MOST_QUERIES:
            return None
        says = "; its metadata says that doubled boxes are removed" if seen.metadata.has_nms else ""
        why = f"one output of {shape_text(shape)}: corners, score and class of up to {shape[1]:,} boxes{says}"
        grids = [factor * cells for cells in seen.cells for factor in (1, 3)]  # of one class, undecoded
        return Match(shape[1] not in grids or seen.metadata.has_nms, why)

    def classes(self, shapes: Mapping[str, Shape]) -> int | None:  # noqa: ARG002 - the face of all
        """See `Layout.classes`."""
        return None

    def decode(self, outputs: Mapping[str, Tensor], least: float, size: Size, classes: int) -> Found:  # noqa: ARG002 - the face of all
        """See `Layout.decode`."""
        (answer,) = outputs.values()
        answer = answer[answer[:, 4] > least]
        return Found(answer[:, :4], answer[:, 4], answer[:, 5].round().long())


class YoloNas(Layout):
    """(n, cells, 4) corners in pixels, and (n, cells, classes) scores."""

    names = ("yolo-nas",)
    nms_iou = 0.7
    outputs = "two outputs (n, cells, 4) and (n, cells, classes)"

    def match(self, seen: Seen) -> Match | None:
        """See `Layout.match`."""
        pair = boxes_and_scores(seen.shapes)
        if pair is None or seen.shapes[pair[0]][1] not in seen.cells:
            return None
        return Match(
            True, f"two outputs, {_shapes_text(seen.shapes)}: a box and scores for each cell of its grids"
        )

    def classes(self, shapes: Mapping[str, Shape]) -> int | None:
        """See `Layout.classes`."""
        pair = boxes_and_scores(shapes)
        return shapes[pair[1]][2] if pair else None

    def decode(self, outputs: Mapping[str, Tensor], least: float, size: Size, classes: int) -> Found:  # noqa: ARG002 - the face of all
        """See `Layout.decode`."""
        boxes, answers = _pair_of(outputs)
        scores, labels = answers.max(dim=1)
        kept = scores > least
        return Found(boxes[kept], scores[kept], labels[kept])


class RfDetr(Layout):
    """(n, queries, 4) centre, width and height from 0 to 1, and (n, queries, classes) logits."""

    names = ("rf-detr",)
    outputs = "two outputs (n, queries, 4) and (n, queries, classes)"

    def match(self, seen: Seen) -> Match | None:
        """See `Layout.match`; certain by the names of its outputs, as DETR's have the same shapes."""
        pair = boxes_and_scores(seen.shapes)
        if pair is None or seen.shapes[pair[0]][1] > MOST_QUERIES:
            return None
        if seen.file.ends.get(pair[1]) in ("Sigmoid", "Softmax"):
            return None
        named = set(seen.shapes) == {"dets", "labels"}
        names = ", called as RF-DETR calls them" if named else ""
        return Match(named, f"two outputs, {_shapes_text(seen.shapes)}: boxes and logits of queries{names}")

    def classes(self, shapes: Mapping[str, Shape]) -> int | None:
        """See `Layout.classes`."""
        pair = boxes_and_scores(shapes)
        return shapes[pair[1]][2] if pair else None

    def preprocess(self, size: Size) -> Preprocess:
        """See `Layout.preprocess`; as RF-DETR's `predict`."""
        return Preprocess(size, "none", mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def decode(self, outputs: Mapping[str, Tensor], least: float, size: Size, classes: int) -> Found:
        """See `Layout.decode`; as RF-DETR's `PostProcess`: the best pairs of query and class."""
        boxes, logits = _pair_of(outputs)
        scores = logits.sigmoid()
        best, pairs = scores.flatten().topk(min(len(boxes), scores.numel()))
        queries, labels = pairs // scores.shape[1], pairs % scores.shape[1]
        kept = (best > least) & (labels < classes)
        height, width = size
        pixels = boxes[queries[kept]] * boxes.new_tensor([width, height, width, height])
        return Found(_corners(pixels), best[kept], labels[kept])


class RtDetr(Layout):
    """labels, boxes and scores (n, queries, ...), final, of images and their sizes; as D-FINE exports too."""

    names = ("rt-detr", "rt-detrv2", "d-fine", "deim")
    outputs = "three outputs labels (n, queries), boxes (n, queries, 4), scores (n, queries)"
    sizes = "orig_target_sizes"

    def match(self, seen: Seen) -> Match | None:
        """See `Layout.match`."""
        if not {"labels", "boxes", "scores"} <= seen.shapes.keys():
            return None
        named = any(port.name == self.sizes for port in seen.file.inputs)
        return (
            Match(named, f"an input {self.sizes}, and labels, boxes and scores as outputs") if named else None
        )

    def classes(self, shapes: Mapping[str, Shape]) -> int | None:  # noqa: ARG002 - the face of all
        """See `Layout.classes`."""
        return None

    def preprocess(self, size: Size) -> Preprocess:
        """See `Layout.preprocess`; resized to the input's shape, 0 to 1."""
        return Preprocess(size, "none")

    def decode(self, outputs: Mapping[str, Tensor], least: float, size: Size, classes: int) -> Found:  # noqa: ARG002 - the face of all
        """See `Layout.decode`; the network was told the input's size, so its boxes are in pixels of that."""
        scores = outputs["scores"]
        kept = scores > least
        return Found(outputs["boxes"][kept], scores[kept], outputs["labels"][kept].long())


LAYOUTS: tuple[Layout, ...] = (YoloV8(), YoloV5(), YoloX(), EndToEnd(), YoloNas(), RfDetr(), RtDetr())
"""Every layout."""


def cells_in(size: Size, strides: tuple[int, ...]) -> int:
    """How many cells the grids of some strides have in an input of a size."""
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def _grid(size: Size, stride: int) -> Tensor:
    """[column, row, stride] of a grid's cells, row by row, float32 (cells, 3)."""
    rows, columns = (-(-side // stride) for side in size)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.full((rows * columns,), stride)], dim=1).float()


def _corners(boxes: Tensor) -> Tensor:
    """Boxes (n, 4) [centre x, centre y, width, height] as [x1, y1, x2, y2]."""
    corners: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return corners


def boxes_and_scores(shapes: Mapping[str, Shape]) -> tuple[str, str] | None:
    """The names of two outputs (n, m, 4) and (n, m, classes), in this order; None of others."""
    if len(shapes) != 2:
        return None
    (one, first), (other, second) = shapes.items()
    if len(first) != 3 or len(second) != 3 or first[1] != second[1]:
        return None
    if first[2] == second[2] == 4:  # four classes: by their names, else as most exports have them
        named = [any(word in name.lower() for word in ("box", "det")) for name in (one, other)]
        return (other, one) if named == [False, True] else (one, other)
    if first[2] == 4:
        return one, other
    return (other, one) if second[2] == 4 else None


def _pair_of(outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Boxes (m, 4) and what is said of their classes (m, classes)."""
    pair = boxes_and_scores({name: (1, *output.shape) for name, output in outputs.items()})
    if pair is None:
        raise ValueError(f"found {_shapes_text({name: tuple(it.shape) for name, it in outputs.items()})}")
    return outputs[pair[0]], outputs[pair[1]]


def _shapes_text(shapes: Mapping[str, Shape]) -> str:
    return " and ".join(f"{short_line(name, 60)!r} {shape_text(shape)}" for name, shape in shapes.items())
