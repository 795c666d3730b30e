"""Descriptions of models: in the list of models, and in run.json."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, InstanceOf

from schemas.tables import ALWAYS, TABLES, RunTables

Origin = Literal["built in", "torchvision", "timm", "factory", "onnx", "transformers"]


class ModelInfo(BaseModel):
    """A model that a job spec can name, as `raylabel models` lists it.

    Attributes:
        name: value for a spec's `model` key.
        task: its kind, by name: see `schemas.tasks`.
        source: origin of the code: "built in", "torchvision", "timm", "factory", "onnx" or "transformers".
        input_size: size of an image after its preprocessing, as text: "224x224", "short side 800".
        categories: number of classes.
        licence: of the weights, or "see the source" if it is not stated.
        quality: measured or published, with the data it was measured on.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    task: str
    source: Origin
    input_size: str
    categories: int
    licence: str
    quality: str


class Explanation(BaseModel):
    """What a `model` of a job spec is taken for, as `raylabel models --describe` says it.

    Attributes:
        model: as it was given, without credentials.
        task: its kind, by name: see `schemas.tasks`.
        source: origin of the code; see `ModelInfo`.
        facts: what is known of it and why, by name, in the order in which it is read.
        spec: the lines for a job spec, YAML; what has to be stated is an example, with a comment. Empty: it
            cannot be used, which `facts` say.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    task: str
    source: Origin
    facts: dict[str, str]
    spec: str


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """The labels of a zero-shot model as its half for texts encoded them, once for all workers.

    An embedder whose half for texts is a file of its own has one without labels, for the settings.

    Attributes:
        labels: the class names; a class id is an index into them.
        vectors: of each label: float32 (width,), of length 1; or (tokens, width) of a network that looks at
            each token.
        tokens: of each label the numbers of its tokens, int64 (tokens,); empty: none are needed any more.
        settings: what decides them beside the labels and the weights: prompt, tokenizer; and what decides
            scores beside them.
        notes: sentences on what may not be as intended.
    """

    labels: tuple[str, ...]
    vectors: tuple[NDArray[np.float32], ...]
    tokens: tuple[NDArray[np.int64], ...]
    settings: Mapping[str, object]
    notes: tuple[str, ...] = ()


class ResolvedModel(BaseModel):
    """Everything that decides a model's answers: stored in run.json; tables have its fingerprint.

    Attributes:
        info: the model's own description.
        weights: the file or the official name the weights come from.
        weights_sha256: of the weights file; None if the library downloads official weights, which it checks
            itself.
        preprocessing: the transforms from uint8 pixels to the model's input, as text.
        categories: class names; a class id is an index into it.
        names: by a class map, the name of each class in the tables, by class id; None of one that is left
            out. Empty: that in `categories`.
        settings: top-k, score type, thresholds, NMS: every setting of the spec that changes rows.
        code: what built the model: the library and its version, or the factory; then what computes it:
            torch's version, and onnxruntime's if that may compute its network.
        modules: of raylabel's, which built it and compute it; see `jobs.prepare.code`.
        parts: digests of what none of the above pins, by name: what a factory built, each file and module of
            the user's that it was built from. Empty for models that their weights file and code pin.
        tables: beside labels and errors, in which it has rows.
        width: of an embedder: how many numbers an embedding has.
        notes: sentences on what may not be as intended.
        takes_texts: of an embedder: whether its model encodes texts, too, in the same space.
        texts: of a zero-shot model: its labels, encoded. For workers; not in run.json.
    """

    model_config = ConfigDict(frozen=True)

    info: ModelInfo
    weights: str
    weights_sha256: str | None
    preprocessing: str
    categories: tuple[str, ...]
    names: tuple[str | None, ...] = ()
    settings: dict[str, object]
    code: str
    modules: tuple[str, ...]
    parts: dict[str, str] = {}
    tables: tuple[str, ...] = ()
    width: int | None = None
    notes: tuple[str, ...] = ()
    takes_texts: bool = False
    texts: InstanceOf[EncodedTexts] | None = Field(None, exclude=True, repr=False)

    @property
    def known_as(self) -> tuple[str | None, ...]:
        """The name of each class in the tables, by class id; None of one that is left out."""
        return self.names or self.categories

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of classes in the tables, each once, in the order of the class ids."""
        return tuple(dict.fromkeys(name for name in self.known_as if name is not None))

    @property
    def gets_boxes(self) -> bool:
        """Whether it gets the detector's boxes, and not whole images."""
        return self.settings.get("on") == "boxes"

    @property
    def fingerprint(self) -> str:
        """Short and stable: "NAME-" and 12 hexadecimal digits of the sha256 of what decides answers."""
        left_out: dict[str, Any] = {"info": {"quality", "licence"}, **_NO_ANSWERS, **self._harmless}
        for name in ("parts", "names"):  # models without them keep the names that they have in older tables
            if not getattr(self, name):
                left_out[name] = True
        digest = hashlib.sha256(self.model_dump_json(exclude=left_out).encode())
        return f"{self.info.name}-{digest.hexdigest()[:12]}"

    def identity(self) -> dict[str, Any]:
        """What must be the same in all attempts of a run."""
        return self.model_dump(mode="json", exclude={**_NO_ANSWERS, **self._harmless})

    @property
    def network(self) -> tuple[object, ...]:
        """What decides the answers of its network, whatever is made of them; equal where it is shared."""
        origin = self.weights_sha256 or self.weights
        options, state = self.settings.get("options", {}), self.settings.get("state")
        own = (self.info.name, self.info.source, origin, self.preprocessing, self.code)
        return (*own, tuple(sorted(self.parts.items())), str(options), state)

    def without_details(self) -> Self:
        """The record without what may be large."""
        return self.model_copy(
            update={"categories": (), "names": (), "parts": {}, "modules": (), "texts": None}
        )

    @property
    def _harmless(self) -> dict[str, Any]:
        """Fields that decide no answers: where a weights file lies, if its sha256 is known."""
        lies_somewhere = self.weights_sha256 is not None and "/" in self.weights
        return {"weights": True} if lies_somewhere else {}


_NO_ANSWERS: dict[str, Any] = dict.fromkeys(("modules", "tables", "width", "notes", "takes_texts"), True)
"""Fields that follow from others."""


def tables_of(
    models: Mapping[str, ResolvedModel], carried: pa.Schema | None = None, facts: Iterable[str] = ()
) -> RunTables:
    """The tables of a run with some models, the manifest's own columns where they are known, and facts."""
    own = {table for model in models.values() for table in model.tables}
    names = tuple(name for name in TABLES if name in own.union(ALWAYS))
    width = next((model.width for model in models.values() if model.width), None)
    return RunTables(names, carried or pa.schema([]), width, tuple(facts))


def identities_of(models: Mapping[str, ResolvedModel]) -> dict[str, Any]:
    """What must be the same of a run's models in all its attempts, by name."""
    return {name: model.identity() for name, model in models.items()}
