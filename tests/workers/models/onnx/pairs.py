"""Two ONNX files of a CLIP or SigLIP for tests: its halves, exported by torch."""

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.workers.models.transformers.made_texts import make_for_texts
from workers.models.transformers.network import quiet_and_offline

SCALE, BIAS = 40.0, {"siglip": 9.0, "siglip2": -4.0}
"""What makes scores of the networks for tests, so that these are apart from 0 and 1."""

IMAGES = ("pixel_values", "image")
"""What exports call the input of the half for images."""


class Half(nn.Module):
    """One half of a network, as exports have it: a vector, and what it is made of."""

    def __init__(self, network: Any, inputs: Sequence[str]) -> None:
        super().__init__()
        self.network, self.inputs = network, inputs

    def forward(self, first: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        if self.inputs[0] in IMAGES:
            output = self.network.get_image_features(pixel_values=first)
        else:
            further = dict(zip(self.inputs[1:], (other.long() for other in others), strict=True))
            further.pop("token_type_ids", None)
            output = self.network.get_text_features(first.long(), **further)
        return output.pooler_output, output.last_hidden_state


def export_half(
    network: Any,
    file: Path,
    *inputs: str,
    vector: str = "",
    batch: int | None = None,
    length: int | None = None,
    dtype: torch.dtype = torch.int64,
) -> Path:
    """Writes one half.

    Args:
        network: whole.
        file: where.
        inputs: their names; the first says which half it is.
        vector: what its vectors are called; "": as optimum calls them.
        batch: images or texts at once; None: any.
        length: tokens of a text; None: any.
        dtype: of its tokens.
    """
    siglip, of_images = "siglip" in network.config.model_type, inputs[0] in IMAGES
    vector = vector or ("pooler_output" if siglip else "image_embeds" if of_images else "text_embeds")
    count = batch or 2
    shape = (count, 3, 64, 64) if of_images else (count, length or (64 if siglip else 9))
    arguments = tuple(torch.ones(shape, dtype=torch.float32 if of_images else dtype) for _ in inputs)
    free = ({} if batch else {0: "batch"}) | ({} if of_images or length else {1: "tokens"})
    file.parent.mkdir(exist_ok=True, parents=True)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            *(Half(network, inputs).eval(), arguments, str(file)),
            input_names=list(inputs),
            output_names=[vector, "last_hidden_state"],
            dynamic_axes={**dict.fromkeys(inputs, free), **({} if batch else {vector: {0: "batch"}})},
            opset_version=17,
            dynamo=False,
        )
    return file


def network_of(folder: Path) -> Any:
    """The network of a folder."""
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    with quiet_and_offline() as transformers:
        return getattr(transformers, name).from_pretrained(folder, attn_implementation="eager")


def make_whole(name: str, folder: Path) -> Path:
    """A folder of transformers', its scores not near 0 and 1; SigLIP's texts without a mask, as Google's."""
    make_for_texts(name, folder)
    if "siglip" in name:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_input_names": ["input_ids"]}))
    network = network_of(folder)
    with torch.no_grad():
        network.logit_scale.fill_(SCALE).log_()
        if hasattr(network, "logit_bias"):
            network.logit_bias.fill_(BIAS[name])
    with quiet_and_offline():
        network.save_pretrained(folder)
    return folder


def make_pair(whole: Path, folder: Path) -> Path:
    """The same with the network's two halves as ONNX files in place of its tensors, as folders of the Hub."""
    shutil.copytree(whole, folder)
    (folder / "model.safetensors").unlink()
    network = network_of(whole)
    export_half(network, folder / "onnx" / "vision_model.onnx", "pixel_values")
    export_half(network, folder / "onnx" / "text_model.onnx", "input_ids")
    return folder
