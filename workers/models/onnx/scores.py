"""Classifiers and embedders in ONNX files: which output is meant, and what its numbers are."""

import json
import shlex
from collections.abc import Mapping

from torch import Tensor, nn

from schemas.exceptions import ModelError
from schemas.tasks import ModelSpec
from schemas.words import value_text, with_article
from workers.models.model import ScoreType
from workers.models.onnx.detector import outputs_text
from workers.models.onnx.file import OnnxFile, UnstatedError
from workers.models.onnx.layouts import Shape
from workers.models.onnx.metadata import Metadata
from workers.models.onnx.network import OnnxFileNetwork
from workers.models.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocess,
    Size,
    assert_crop_fits,
    pair,
)
from workers.storage.uris import is_local

_ENDS: dict[str, str] = {
    "Softmax": "softmax",
    "QLinearSoftmax": "softmax",
    "Sigmoid": "sigmoid",
    "QLinearSigmoid": "sigmoid",
}
"""Operators whose answers are scores already, and what they do."""

_ROUNDING = 0.01
"""How far the sum of a softmax's scores may be from 1, in float16 or in eight bits."""


class OneOutput(nn.Module):
    """One output of an ONNX file, as a row of numbers for each image.

    Args:
        network: the file's network.
        output: its name.
    """

    def __init__(self, network: OnnxFileNetwork, output: str) -> None:
        super().__init__()
        self.network = network
        self.name = output
        self._position = network.outputs.index(output)

    def forward(self, batch: Tensor) -> Tensor:
        """Float32 (n, numbers) for a batch, float32 (n, 3, h, w)."""
        outputs: tuple[Tensor, ...] = self.network(batch)
        return outputs[self._position].flatten(1)


def is_row(shape: Shape) -> bool:
    """Whether an output is a row of numbers for an image: (n, numbers), or (n, numbers, 1, 1)."""
    return len(shape) >= 2 and all(length == 1 for length in shape[2:])


def row_output(file: OnnxFile, answers: Mapping[str, Tensor], section: str, classes: int | None) -> str:
    """The name of the output that has a row of numbers for an image.

    Args:
        file: the file.
        answers: its outputs by name.
        section: what it is to be.
        classes: how many the job spec names; None: it names none.

    Raises:
        ModelError: none has, or several have.
    """
    shapes = {output: tuple(answer.shape) for output, answer in answers.items()}
    rows = {output: shape for output, shape in shapes.items() if is_row(shape)}
    if len(rows) == 1:
        return next(iter(rows))
    if not rows:
        raise no_row(file.name, shapes, section)
    named = [output for output, shape in rows.items() if shape[1] == classes]
    meant, why = next(iter(rows)), "if that is the one"
    if len(named) == 1:
        meant, why = named[0], "which has as many numbers as there are categories"
    raise ModelError(
        f"{file.name} does not say which output is {with_article(section)}'s: found {outputs_text(rows)}; "
        f"cut it to one, and name the new file; to {meant!r}, {why}:\n  {_cutting(file, meant)}"
    )


def no_row(name: str, shapes: Mapping[str, Shape], section: str, layouts: str = "") -> ModelError:
    """The error for a file whose outputs are no classifier's or embedder's.

    Args:
        name: of the file.
        shapes: of its outputs, by name.
        section: what it is to be.
        layouts: of detectors, that it may have; "" where none is known.
    """
    hint = f"It is a detector ({layouts}): name" if layouts else "If it is a detector, name"
    return ModelError(
        f"{name} is no {section}: found {outputs_text(shapes)}; allowed: one output (n, numbers). {hint} it "
        "under `detector:`"
    )


def _cutting(file: OnnxFile, output: str) -> str:
    """The command that leaves a file one of its outputs."""
    whole = file.location if is_local(file.location) else file.name
    cut = f"{whole[: -len('.onnx')]}-cut.onnx"
    arguments = (whole, cut, [port.name for port in file.inputs], [output])
    code = f"import onnx.utils; onnx.utils.extract_model({', '.join(map(json.dumps, arguments))})"
    return shlex.join(["python", "-c", code])


def scores_in(file: OnnxFile, output: str) -> str | None:
    """What makes an output scores at the end of the graph, "softmax" or "sigmoid"; None: nothing there."""
    return _ENDS.get(file.ends.get(output, ""))


def add_up(rows: Tensor) -> bool:
    """Whether answers, float (n, classes), are numbers from 0 to 1 that add up to 1, as a softmax's do."""
    sums = rows.sum(dim=1)
    return bool(rows.min() >= -_ROUNDING and ((sums - 1).abs() <= _ROUNDING).all())


def is_exclusive(file: OnnxFile, output: str, rows: Tensor) -> bool:
    """Whether an output has scores of classes of which an image has one, so that all of them add up to 1.

    Not every graph that ends in a softmax does: it may be one over yes and no for each of several labels.
    """
    return scores_in(file, output) != "sigmoid" and add_up(rows)


def score_type_in(file: OnnxFile, output: str, spec: ModelSpec, rows: Tensor) -> ScoreType:
    """How an output becomes scores: not at all where the graph ends in a softmax or a sigmoid.

    A softmax over one class would be 1 for any image: it is a sigmoid where nothing is asked.

    Args:
        file: the file.
        output: its name.
        spec: the section of the job spec.
        rows: what it answers for images of noise, float32 (n, classes).

    Raises:
        UnstatedError: its graph does not show a softmax, but its answers look like those of one.
        ModelError: the spec wants a second one.
    """
    inside = scores_in(file, output)
    asked: ScoreType | None = getattr(spec, "score_type", None)
    if inside and asked not in (None, "none"):
        raise ModelError(
            f"score_type: found {asked}, but {file.name} ends in a {inside}, and a second one would "
            "flatten its scores; leave score_type out, or write `score_type: none`"
        )
    if not inside and asked is None and add_up(rows):
        raise UnstatedError(
            f"{file.name} does not say whether its answers are scores: they are from 0 to 1 and add up to 1, "
            "as after a softmax, and a second one would flatten them; add `score_type: none`, or "
            "`score_type: softmax` if they are logits",
            *("score_type", "none", "or softmax, if its answers are logits"),
        )
    return "none" if inside else asked or ("sigmoid" if rows.shape[1] == 1 else "softmax")


def row_preprocess(metadata: Metadata, spec: ModelSpec, size: Size | None, section: str) -> Preprocess:
    """How an image becomes the input of a classifier or an embedder, before `input:` changes values.

    Ultralytics' own classifiers say enough: the short side is resized, the centre cropped, 0 to 1. Of another
    file its size may be known, but not how it was trained.

    Args:
        metadata: of the file.
        spec: its section of the job spec.
        size: that the file is made for; None: any.
        section: what it is to be.

    Raises:
        ModelError: neither the file nor `input:` says it.
    """
    given = spec.input
    own = metadata.size if metadata.task == "classify" else None
    if not own and (given is None or not given.normalises):
        side = min(size or (224, 224))
        is_half = getattr(spec, "text_model", None) is not None
        example = {
            "size": side if is_half else round(side * 256 / 224),
            "crop": list(size) if size and size[0] != size[1] else side,
            **({"interpolation": "bicubic"} if is_half else {}),
            "mean": list(CLIP_MEAN if is_half else IMAGENET_MEAN),
            "std": list(CLIP_STD if is_half else IMAGENET_STD),
        }
        usual = (
            "most CLIPs; a SigLIP has size: [224, 224], mean: 0.5, std: 0.5"
            if is_half
            else "most networks of ImageNet"
        )
        text = ", ".join(f"{key}: {value_text(value)}" for key, value in example.items())
        found = ", ".join(given.model_dump(exclude_none=True)) if given else ""
        lacking = f", and `input` has {found} but none of scale, mean and std" if found else ""
        raise UnstatedError(
            f"{metadata.name} does not say how images become its input{lacking}; add what it was trained "
            f"with, for {usual}:\n  {section}:\n    model: {metadata.name}\n    input: "
            f"{{{text}}}",
            *("input", example, "ImageNet's usual; write what it was trained with"),
        )
    resized = given.size if given else None
    crop = pair(given.crop) if given and given.crop else None
    if resized is None and crop is None and size is None and own is None:
        raise ModelError(
            f"{metadata.name} takes images of any size; add `size:` to `input:`, such as size: 224"
        )
    if isinstance(resized, list):
        preprocess = Preprocess(pair(resized), "none", crop or pair(resized))
    else:
        crop = crop or size or own or (pair(resized) if resized else None)
        side = resized or min(crop or (1, 1))
        preprocess = Preprocess((side, side), "short side", crop)
    if size is not None and preprocess.output_size != size:
        found = "x".join(map(str, preprocess.output_size))
        raise ModelError(
            f"input: makes {found}, but {metadata.name} takes {'x'.join(map(str, size))} (height x width); "
            f"allowed: crop: {list(size)}, or a size of that"
        )
    if resized is not None:
        least = max(preprocess.output_size)
        assert_crop_fits(preprocess, f"; write a size of {least} or more" if size else "")
    return preprocess
