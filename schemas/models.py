"""What a run says of the models it used."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict


class ModelInfo(BaseModel):
    """One model that can be named in a job spec, as `raylabel models` lists it.

    Attributes:
        name: what a spec's `model` key takes.
        task: which of the two questions it answers.
        source: where the code comes from: "built in", "torchvision", "timm" or "factory".
        input_size: what its preprocessing makes of an image, for a person: "224x224", "short side 800".
        categories: how many classes it knows.
        licence: of the weights, or "see the source" where it is not stated.
        quality: measured or published, with the data it was measured on.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    task: Literal["classifier", "detector"]
    source: Literal["built in", "torchvision", "timm", "factory"]
    input_size: str
    categories: int
    licence: str
    quality: str


class ResolvedModel(BaseModel):
    """Everything that decides what a model answers: run.json keeps it, the tables name its fingerprint.

    Attributes:
        info: the model's own description.
        weights: the file or the official name the weights come from.
        weights_sha256: of the weights file; None where official weights are fetched by the library, which
            checks them itself.
        preprocessing: the transforms from uint8 pixels to the model's input, written out.
        categories: class names; a class id is an index into it.
        settings: top-k, score type, thresholds, NMS: every setting of the spec that changes rows.
        code: what built the model: the library and its version, or the factory module's sha256; then what
            computes it: torch's version, and onnxruntime's where that may compute its network.
    """

    model_config = ConfigDict(frozen=True)

    info: ModelInfo
    weights: str
    weights_sha256: str | None
    preprocessing: str
    categories: tuple[str, ...]
    settings: dict[str, object]
    code: str

    @property
    def fingerprint(self) -> str:
        """Short and stable: "NAME-" and 12 hexadecimal digits of the sha256 of all the above."""
        digest = hashlib.sha256(self.model_dump_json(exclude={"info": {"quality", "licence"}}).encode())
        return f"{self.info.name}-{digest.hexdigest()[:12]}"
