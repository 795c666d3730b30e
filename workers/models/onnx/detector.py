"""Detectors in ONNX files: the layout of one, its class names and its module."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from schemas.exceptions import ModelError
from schemas.tasks import DetectorSpec
from workers.models.folding import grouped_nms
from workers.models.model import require_finite
from workers.models.onnx.file import UnstatedError
from workers.models.onnx.layouts import LAYOUTS, Layout, Match, RtDetr, Seen, Shape
from workers.models.onnx.metadata import Metadata
from workers.models.onnx.network import OnnxFileNetwork
from workers.models.preprocess import Preprocess
from workers.printable import short_line

_MOST_BOXES = 300
"""Boxes kept in an image, best first, as Ultralytics keeps by itself."""


class OnnxDetector(nn.Module):
    """A detector of an ONNX file: fits images, runs its network, decodes and suppresses boxes.

    Takes a list of n images, uint8 RGB (3, height, width), of any sizes. Returns torchvision's list of n
    dictionaries, boxes in pixels of the image. `score_thresh`, `nms_thresh` and `detections_per_img` are
    torchvision's names; there is no `nms_thresh`, nor `nms_groups`, where the network removes doubled boxes.

    Args:
        network: its network.
        layout: what its outputs are.
        preprocess: makes its input.
        classes: the number of class names.

    Attributes:
        preprocess: makes its input.
    """

    def __init__(
        self, network: OnnxFileNetwork, layout: Layout, preprocess: Preprocess, classes: int
    ) -> None:
        super().__init__()
        self.network, self._layout = network, layout
        self.preprocess, self._classes = preprocess, classes
        self.score_thresh = 0.05
        if layout.nms_iou is not None:
            self.nms_thresh = layout.nms_iou
            self.nms_groups: Tensor | None = None
        self.detections_per_img = _MOST_BOXES

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """The objects of each image.

        Raises:
            FloatingPointError: the network returned NaN or infinity.
        """
        batch = torch.stack([self.preprocess(image) for image in images])
        height, width = batch.shape[2:]
        sizes = torch.tensor([[width, height]]).expand(len(images), 2)
        outputs = self.network(batch, {port.name: sizes for port in self.network.others})
        require_finite(outputs)
        named = dict(zip(self.network.outputs, outputs, strict=True))
        return [
            self._objects({name: output[number] for name, output in named.items()}, image)
            for number, image in enumerate(images)
        ]

    def _objects(self, outputs: Mapping[str, Tensor], image: Tensor) -> dict[str, Tensor]:
        """The objects in one image that score enough and that no better box of their class overlaps."""
        size = self.preprocess.size
        found = self._layout.decode(outputs, self.score_thresh, size, self._classes)
        if hasattr(self, "nms_thresh"):
            keep = grouped_nms(found.boxes, found.scores, found.labels, self.nms_groups, self.nms_thresh)
        else:
            keep = found.scores.argsort(descending=True, stable=True)
        keep = keep[: self.detections_per_img]
        placement = self.preprocess.placement(image.shape[2], image.shape[1])
        return {
            "boxes": placement.undo(found.boxes[keep]),
            "scores": found.scores[keep],
            "labels": found.labels[keep],
        }


@dataclass(frozen=True)
class Taken:
    """What a file was taken for.

    Attributes:
        layout: of it.
        why: it is that.
        classes: how many it tells apart; None: its outputs do not show it.
    """

    layout: Layout
    why: str
    classes: int | None


def layout_of(spec: DetectorSpec, seen: Seen) -> Taken:
    """The layout of a file: the one that the spec states, or the only one that it can have.

    Raises:
        ModelError: there is no such layout, the file does not have it, or it is not certain.
    """
    matches = {layout: match for layout in LAYOUTS if (match := layout.match(seen))}
    if spec.layout is not None:
        layout = _named(spec.layout)
        if layout not in matches:
            raise ModelError(
                f"layout: {spec.layout} is {layout.outputs}, but {seen.file.name} has "
                f"{outputs_text(seen.shapes)}"
                f"{_instead(matches)}"
            )
        return Taken(layout, f"stated; {matches[layout].why}", layout.classes(seen.shapes))
    certain = [layout for layout, match in matches.items() if match.certain]
    if len(certain) == 1:
        return Taken(certain[0], matches[certain[0]].why, certain[0].classes(seen.shapes))
    candidates = {layout: matches[layout] for layout in certain or matches}
    if not candidates:
        raise ModelError(
            f"{seen.file.name} is no detector that is known: found {outputs_text(seen.shapes)}; known are "
            f"{'; '.join(f'{layout.names[0]}: {layout.outputs}' for layout in LAYOUTS)}"
        )
    listed = "; ".join(f"{layout.names[0]} ({match.why})" for layout, match in candidates.items())
    lines = " or ".join(f"`layout: {layout.names[0]}`" for layout in candidates)
    names = [layout.names[0] for layout in candidates]
    raise UnstatedError(
        f"{seen.file.name} does not say what its output means: it may be {listed}; add {lines}",
        *("layout", names[0], f"or {', '.join(names[1:])}" if names[1:] else "if it is one"),
    )


def _named(name: str) -> Layout:
    """The layout of a name.

    Raises:
        ModelError: there is none.
    """
    known = {alias: layout for layout in LAYOUTS for alias in layout.names}
    if name.lower() not in known:
        close = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ModelError(f"layout: found {name!r}; allowed: {', '.join(known)}{hint}")
    return known[name.lower()]


def _instead(matches: Mapping[Layout, Match]) -> str:
    """The layouts that a file can have, to add to a message."""
    return f"; it can be {' or '.join(layout.names[0] for layout in matches)}" if matches else ""


def outputs_text(shapes: Mapping[str, Shape]) -> str:
    """Outputs by name and shape, in words."""
    listed = [f"{short_line(name, 60)!r} ({', '.join(map(str, shape))})" for name, shape in shapes.items()]
    more = ", …" if len(listed) > 6 else ""
    return f"the output{'s' if len(listed) > 1 else ''} {', '.join(listed[:6])}{more}"


def assert_inputs(network: OnnxFileNetwork, name: str) -> None:
    """Refuses inputs beside the images' that nothing is known to put into.

    Raises:
        ModelError: there is one.
    """
    wrong = [port for port in network.others if port.name != RtDetr.sizes or port.shape[1:] != (2,)]
    if wrong:
        raise ModelError(
            f"{name} wants more than images: its input {', '.join(map(str, wrong))}; allowed beside the "
            f"images: {RtDetr.sizes} (n, 2), as RT-DETR and D-FINE export it"
        )


def assert_task(metadata: Metadata, task: str, section: str) -> None:
    """Refuses a file that Ultralytics exported for another task than a section of the job spec is for."""
    if metadata.task and metadata.task != task:
        where = {"detect": "detector", "classify": "classifier"}.get(metadata.task)
        hint = f"name it under `{where}:`" if where else f"export a model for `task={task}`"
        raise ModelError(
            f"{metadata.name} says that its task is {metadata.task}, which is no {section}'s; {hint}"
        )
