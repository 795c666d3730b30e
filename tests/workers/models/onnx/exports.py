"""ONNX files for tests: networks with known boxes under each layout, exported by torch; files made by "
"hand."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

Boxes = NDArray[np.float32]

STRIDES = (8, 16, 32)


def cells(height: int, width: int) -> Tensor:
    """[column, row, stride] of the cells of a YOLO's grids, float (cells, 3)."""
    rows = [
        [column, row, stride]
        for stride in STRIDES
        for row in range(height // stride)
        for column in range(width // stride)
    ]
    return torch.tensor(rows, dtype=torch.float32)


class KnownBoxes(nn.Module):
    """Answers each image with boxes (m, 4), corners in input pixels, and scores (m, classes), 0 to 1.

    Of a black image all scores are 0, so that what is answered depends on the input.
    """

    def __init__(self, boxes: Boxes, scores: Boxes) -> None:
        super().__init__()
        self.boxes, self.scores = (
            nn.Parameter(torch.tensor(it), requires_grad=False) for it in (boxes, scores)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        lit = (images.amax(dim=(1, 2, 3)) > 0).to(images.dtype)[:, None, None]
        boxes, scores = self.boxes.to(images.dtype), self.scores.to(images.dtype)
        return boxes[None] + 0 * lit, scores[None] * lit


class UnderLayout(nn.Module):
    """A network of boxes and scores, with its answers under a layout, for inputs of a size."""

    def __init__(self, network: nn.Module, layout: str, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.layout, self.size = network, layout, size

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Any:  # noqa: PLR0911 - one a layout
        boxes, scores = self.network(images)
        height, width = self.size
        centre = torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=2)
        objectness = torch.full_like(scores[..., :1], 0.5)
        best, label = scores.max(dim=2)
        match self.layout:
            case "yolov8":
                return torch.cat([centre, scores], dim=2).transpose(1, 2)
            case "yolov5":
                return torch.cat([centre, objectness, scores], dim=2)
            case "yolox":
                grid = cells(height, width)
                corner = centre[..., :2] / grid[:, 2:] - grid[:, :2]
                return torch.cat([corner, (centre[..., 2:] / grid[:, 2:]).log(), objectness, scores], dim=2)
            case "end2end":
                return torch.cat([boxes, best[..., None], label[..., None].to(boxes.dtype)], dim=2)
            case "yolo-nas":
                return boxes, scores
            case "rf-detr":
                share = centre / torch.tensor([width, height, width, height])
                return share, torch.logit(scores, eps=1e-7)
            case "rt-detr":
                assert sizes is not None
                scale = sizes.repeat(1, 2)[:, None] / torch.tensor([width, height, width, height])
                return label, boxes * scale, best
        raise ValueError(self.layout)


OUTPUTS = {
    "yolo-nas": ["boxes", "scores"],
    "rf-detr": ["dets", "labels"],
    "rt-detr": ["labels", "boxes", "scores"],
}
"""Names of outputs, as the makers' exports have them."""


def export(
    module: nn.Module,
    file: Path,
    size: tuple[int, int],
    *,
    layout: str = "",
    dynamic: bool = True,
    any_size: bool = False,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
    outputs: Sequence[str] = ("output0",),
) -> Path:
    """Exports a network with one input, `images`, and for RT-DETR `orig_target_sizes`."""
    outputs = OUTPUTS.get(layout, list(outputs))
    arguments: tuple[Tensor, ...] = (torch.full((1, 3, *size), 1, dtype=dtype),)
    names = ["images"]
    if layout == "rt-detr":
        arguments, names = (*arguments, torch.tensor([[size[1], size[0]]])), ["images", "orig_target_sizes"]
    axes = {name: {0: "batch"} for name in (*names, *outputs)} if dynamic else {}
    if any_size:
        axes["images"] = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            *(module.eval(), arguments, str(file)),
            input_names=names,
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    if metadata:
        with_metadata(file, metadata)
    return file


def with_metadata(file: Path, metadata: Mapping[str, str]) -> None:
    """Writes entries into a file's metadata."""
    model = onnx.load(str(file))
    helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(file))


def ultralytics(names: Sequence[str], task: str = "detect", **more: str) -> dict[str, str]:
    """The metadata that Ultralytics' exporter writes."""
    own = {"description": "Ultralytics YOLO", "stride": "32", "task": task, "batch": "1"}
    return {**own, "names": str(dict(enumerate(names))), **more}


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    values: Mapping[str, NDArray[Any]] | None = None,
    *,
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model of some operators."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (values or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: onnx.ModelProto, file: Path) -> Path:
    """Writes a model as it is, whatever onnx's checker would say."""
    file.write_bytes(model.SerializeToString())
    return file
