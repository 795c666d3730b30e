"""The kinds of model that a job may have: what each does, its section of the job spec, its own table."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from schemas.errors import Stage
from schemas.section import ONE_OR_MORE, SHA256, Section, allowed
from schemas.words import value_text

Score = Annotated[float, Field(ge=0, le=1)]

_ARCHIVES = ("tar://", "zip://")
"""How URLs begin of what is in an archive."""

_HAS_QUERY = re.compile(r"(?:\w+::)*(?!file:|tar:|zip:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
"""How URLs begin that may have a query; elsewhere a question mark is a part of a name."""

_LIBRARIES = ("timm/", "torchvision/")
"""How names of models begin that are no paths."""

OTHER_FILES = (
    *(".pt", ".pth", ".pth.tar", ".bin", ".ckpt", ".safetensors", ".torchscript", ".ptl", ".pkl"),
    *(".engine", ".plan", ".trt", ".tflite", ".pb", ".h5", ".keras", ".mlmodel", ".mlpackage", ".xml"),
    *(".ncnn", ".param", ".pdmodel", ".gguf", ".rknn", ".hef", ".zip", ".ort"),
)
"""How files of models end that cannot be named as `model`; see `workers.models.other_files`."""

WORDNET = "wordnet"
"""The `class_map` that comes with raylabel, of ImageNet's classes: no file of the user's."""

MAX_MARGIN = 1
"""Sides of a box by which it may be grown on each side."""

MAX_SIDE = 8192
"""Pixels that a side of a network's input may have."""

_Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
_Sides = Annotated[
    _Side | Annotated[list[_Side], Field(min_length=2, max_length=2)] | None,
    allowed(f"a whole number of pixels from 1 to {MAX_SIDE}, or two of them in a list, [height, width]"),
]
_Mean = Annotated[
    float | Annotated[list[float], Field(min_length=3, max_length=3)] | None,
    allowed("a number, or three of them in a list, one for each channel"),
]
_Positive = Annotated[float, Field(gt=0)]
_Std = Annotated[
    _Positive | Annotated[list[_Positive], Field(min_length=3, max_length=3)] | None,
    allowed("a number above 0, or three of them in a list, one for each channel"),
]
_Scale = Annotated[
    Annotated[float, Field(ge=1)] | None,
    allowed(
        "the number, 1 or more, that pixels of 0 to 255 are divided by: 255 makes them 0 to 1, 1 keeps them"
    ),
]
_ClassMap = Annotated[
    Annotated[str, Field(min_length=1)] | None,
    allowed(
        "the path or URL of a file that ends in .yaml, .yml or .csv and has the names, in YAML a line "
        f"`car: vehicle` for each; or {WORDNET}, for ImageNet's classes"
    ),
]


@dataclass(frozen=True)
class Task:
    """What a model does with an image.

    Attributes:
        name: of such a model: its key in the job spec, the column of its fingerprint in the tables.
        stage: in which it runs.
        table: beside labels and errors, in which it has rows; None: none.
        serve: the task whose models serve for this one, too; None: it has models of its own.
    """

    name: str
    stage: Stage
    table: str | None = None
    serve: "Task | None" = None


@dataclass(frozen=True)
class BoxChoice:
    """Which of the detector's boxes a model of the second stage gets, each as an image of its own.

    Attributes:
        classes: names of the detector's classes, each once, in order; empty: all.
        margin: by how much a box is grown on each side before it is cut out: a share of its width to the left
            and right, of its height above and below.
        most: boxes of an image, those with the best scores; None: all.
    """

    classes: tuple[str, ...] = ()
    margin: float = 0.0
    most: int | None = None


CLASSIFY = Task("classifier", Stage.CLASSIFY)
DETECT = Task("detector", Stage.DETECT, table="boxes")
EMBED = Task("embedder", Stage.EMBED, table="embeddings", serve=CLASSIFY)
OBJECT_EMBEDDINGS = "object_embeddings"
"""The table of an embedder that gets boxes."""

TAG = Task("tagger", Stage.TAG, table="tags", serve=CLASSIFY)

FILE_KEYS = ("weights", "categories", "labels", "class_map", "text_model", "tokenizer")
"""Keys of models' sections whose text may be the path or URL of a file."""

_PLACE_KEYS = ("text_model", "tokenizer")
"""Those whose text is nothing else."""

TASKS = (CLASSIFY, DETECT, EMBED, TAG)
"""Every kind, in the order in which an image passes them."""


class InputSpec(Section):
    """How an image becomes a network's input, where its file does not say it or says it wrong.

    An image is resized, cropped or padded, its channels are put in order, and each value x of 0 to 255
    becomes (x / scale - mean) / std. None: as the model's file says, or its layout.

    Attributes:
        size: height and width in pixels. A detector's input has them; one number is a square. A classifier's
            image is resized to them; one number is the length of its short side.
        crop: of a classifier or an embedder: height and width of the centre that is kept after that; one
            number is a square.
        letterbox: of a detector: where an image that keeps its shape is in the input: "center", "top-left";
            "square" pads it right and below to a square before it is resized; "none" resizes it to the
            input's shape.
        pad: value 0 to 255 of the rest of the input.
        interpolation: "linear" is OpenCV's INTER_LINEAR; the others are Pillow's filters, which are
            antialiased.
        channels: their order in the input.
        scale: what values are divided by: 255 makes 0 to 1, 1 leaves 0 to 255.
        mean: of each channel after that, in the order of the input, or one for all.
        std: the same.
    """

    size: _Sides = None
    crop: _Sides = None
    letterbox: Literal["center", "top-left", "square", "none"] | None = None
    pad: int | None = Field(None, ge=0, le=255)
    interpolation: Literal["linear", "nearest", "box", "bilinear", "bicubic", "lanczos"] | None = None
    channels: Literal["rgb", "bgr"] | None = None
    scale: _Scale = None
    mean: _Mean = None
    std: _Std = None

    @property
    def normalises(self) -> bool:
        """Whether it says what values the pixels become."""
        return any(value is not None for value in (self.scale, self.mean, self.std))


def _place_of(location: str) -> str:
    """A path or URL without a query, and of what is in an archive (`zip://vit::…`) without that."""
    named = location.partition("::")[0] if location.startswith(_ARCHIVES) else location
    return named.partition("?")[0] if _HAS_QUERY.match(named) else named


def is_onnx(location: str) -> bool:
    """Whether a name is the path or URL of an ONNX file."""
    return _place_of(location).lower().endswith(".onnx")


class ModelSpec(Section):
    """The settings that all kinds of model have.

    Attributes:
        task: what such a model does; no setting.
        model: a name that `raylabel models` lists, "torchvision/NAME", "timm/NAME", "module:factory", or the
            path or URL of an ONNX file or of a Hugging Face folder.
        weights: a file (path or URL) of tensors by name, or a torchvision weights name such as
            "IMAGENET1K_V2"; a factory that takes `weights` gets any file; None: the model's official weights.
        sha256: hash that the weights file must have; checked before it is loaded.
        state: name of the set of tensors that is taken from the weights file, where it holds several: "ema",
            "state_dict", "ema.module"; None: the only one, or one of a usual name.
        options: keyword arguments of a factory; they are written to run.json.
        categories: the class names in the model's own order, or a text file with one on each line; None:
            the model's own.
        input: how an image becomes its input; None: as the model says.
    """

    task: ClassVar[Task]
    model: str = Field(min_length=1)
    weights: str | None = None
    sha256: str | None = Field(None, pattern=SHA256)
    state: str | None = Field(None, min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    categories: str | list[str] | None = None
    input: InputSpec | None = None

    def what_is_kept(self, classes: int) -> str:
        """Which of its answers go to the tables, in words, of a model with so many classes."""
        raise NotImplementedError

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables beside labels and errors in which it has rows."""
        return (self.task.table,) if self.task.table else ()

    @property
    def is_onnx(self) -> bool:
        """Whether `model` is the path or URL of an ONNX file."""
        return is_onnx(self.model)

    @property
    def is_folder(self) -> bool:
        """Whether `model` is the path or URL of a folder."""
        is_file = self._path.endswith((".onnx", *OTHER_FILES))
        return "/" in self.model and not is_file and not self.model.startswith(_LIBRARIES)

    @property
    def _place(self) -> str:
        """`model` as `_place_of` has it."""
        return _place_of(self.model)

    @property
    def _path(self) -> str:
        """The same in lower case."""
        return self._place.lower()

    @property
    def is_location(self) -> bool:
        """Whether `model` is the path or URL of a file or a folder, and no name."""
        return self.is_onnx or self.is_folder

    @property
    def places(self) -> dict[str, str]:
        """The paths and URLs that it names, by key: of the model, where it is no name, and of other files."""
        given = {key: getattr(self, key, None) for key in FILE_KEYS}
        files = {
            key: value
            for key, value in given.items()
            if isinstance(value, str)
            and value != WORDNET
            and (
                key in _PLACE_KEYS or "/" in value or Path(value).is_file()
            )  # otherwise it is a name, such as COCO_V1
        }
        return {"model": self.model, **files} if self.is_location else files

    @property
    def is_factory(self) -> bool:
        """Whether `model` is a user's `module:factory`."""
        return ":" in self.model and "/" not in self.model and not self.is_location

    @property
    def name(self) -> str:
        """A short name of the model: that of a library without the library's, the last part of a location."""
        if self.is_location or self._path.endswith(OTHER_FILES):
            last = self._place.rstrip("/").rpartition("/")[2] or self.model
            is_host = self._place.rstrip("/").endswith(f"://{last}")
            return last.rpartition("@")[2] if is_host else last  # without a user and a password
        return self.model.removeprefix("torchvision/")

    @model_validator(mode="after")
    def _has_a_file_for_a_state(self) -> Self:
        if self.state is not None and self.weights is None:
            raise ValueError(
                f".state: found {self.state!r} without weights; allowed: beside `weights: FILE`, the name of "
                "a set of tensors in that file"
            )
        return self

    @model_validator(mode="after")
    def _has_options_for_a_factory(self) -> Self:
        if self.options and not self.is_factory:
            raise ValueError(
                f".options: found {', '.join(self.options)} for {self.model}; allowed: for a model "
                "of your own, `module:factory`, as its keyword arguments"
            )
        return self


class BoxesSpec(ModelSpec):
    """A model that gets whole images, or what is in the detector's boxes.

    Attributes:
        on: "image", or "boxes": each box that the detector keeps, cut out as an image of its own.
        classes: names of the detector's classes whose boxes it gets, or the only one; None: all.
        margin: see `BoxChoice`.
        max_boxes: the most boxes of an image that it gets, best first; None: all that the detector keeps.
    """

    on: Literal["image", "boxes"] = "image"
    classes: Annotated[list[Annotated[str, Field(min_length=1)]], ONE_OR_MORE, Field(min_length=1)] | None = (
        None
    )
    margin: float = Field(0.0, ge=0, le=MAX_MARGIN)
    max_boxes: int | None = Field(None, ge=1, le=10_000)

    @property
    def boxes(self) -> BoxChoice | None:
        """The boxes that it gets; None: it gets whole images."""
        if self.on == "image":
            return None
        return BoxChoice(tuple(sorted(set(self.classes or ()))), float(self.margin), self.max_boxes)

    def what_it_gets(self) -> str:
        """The boxes that it gets, in words; "" where it gets whole images."""
        if (boxes := self.boxes) is None:
            return ""
        which = f"boxes of {', '.join(boxes.classes)}" if boxes.classes else "boxes"
        margin = f", margin {boxes.margin:g}" if boxes.margin else ""
        return which + margin + ("" if boxes.most is None else f", at most {boxes.most}")

    @model_validator(mode="after")
    def _has_boxes(self) -> Self:
        given = {"classes": self.classes, "margin": self.margin or None, "max_boxes": self.max_boxes}
        key = next((key for key, value in given.items() if value is not None), None)
        if key is not None and self.boxes is None:
            raise ValueError(
                f".{key}: found {given[key]!r} without `on: boxes`; allowed: beside `on: boxes`, which sends "
                "the detector's boxes through this model"
            )
        return self


LABEL = "{}"
"""Where a label goes in a prompt."""

Prompt = Annotated[str, Field(min_length=1)]


class PromptedSpec(ModelSpec):
    """A model whose classes may be texts that the job states (zero-shot).

    Attributes:
        labels: of a model that has a half for texts: the texts that it looks for, which are the class names;
            or a text file (path or URL) with one on each line. None: its classes are its own.
        prompt: what is made of a label, `LABEL` in it, before it is encoded; of several, the mean of all
            encoded ones counts. None: as transformers' pipeline for such a model does it.
    """

    labels: str | list[str] | None = None
    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1)] | None = None

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str | list[str] | None) -> str | list[str] | None:
        for template in [prompt] if isinstance(prompt, str) else prompt or []:
            if LABEL not in template or set("{}") & set(template.replace(LABEL, "")):
                raise ValueError(
                    f"found {template!r}; allowed: text with {LABEL} where the label goes, such as "
                    f"'a photo of {LABEL}'"
                )
        return prompt

    @model_validator(mode="after")
    def _has_one_list_of_names(self) -> Self:
        if self.labels is not None and self.categories is not None:
            raise ValueError(
                ".categories: found beside labels, which are the class names; allowed: labels alone, and "
                "`class_map` for other names in the tables"
            )
        if self.prompt is not None and self.labels is None:
            raise ValueError(".prompt: found without labels; allowed: beside the labels that are put into it")
        return self


class PairSpec(ModelSpec):
    """A model that may be the half for images of a CLIP or SigLIP, whose half for texts is another ONNX file.

    Attributes:
        text_model: the path or URL of that file; None: `model` has both halves, or none for texts.
        tokenizer: the folder (path or URL) of that half's tokenizer, or the tokenizer.json in it; None: the
            folder of `text_model`.
    """

    text_model: str | None = Field(None, min_length=1)
    tokenizer: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _has_two_halves(self) -> Self:
        if self.text_model is not None and not self.is_onnx:
            raise ValueError(
                f".text_model: found for {self.model}; allowed: beside the half for images as an ONNX file, "
                "`model: vision_model.onnx`"
            )
        if self.text_model is not None and not is_onnx(self.text_model):
            raise ValueError(
                f".text_model: found {self.text_model}; allowed: the path or URL of an ONNX file, the half "
                "for texts"
            )
        if self.tokenizer is not None and self.text_model is None:
            raise ValueError(
                ".tokenizer: found without text_model; allowed: beside `text_model`, an ONNX file, whose "
                "tokenizer it is. A folder has its own"
            )
        return self


class ClassesSpec(PairSpec, PromptedSpec):
    """A model that gives each of its classes a score for the whole image.

    Attributes:
        class_map: a file (path or URL) of other names for its classes, or "wordnet"; see
            `workers.models.class_maps`.
        score_type: how logits become scores; "none": they are scores already; None: according to the model's
            training.
        score_threshold: score that a class must exceed to be a tag, 0 to 1; None: scores decide nothing.
        class_thresholds: the same for individual classes, by name.
        logit_scale: of ONNX files of a CLIP or SigLIP, which do not hold it: what the cosine of an image and
            a label is multiplied by; None: of a CLIP 100.
        logit_bias: likewise of a SigLIP: what is added then.
    """

    class_map: _ClassMap = None
    score_type: Literal["softmax", "sigmoid", "none"] | None = None
    score_threshold: Score | None = None
    class_thresholds: dict[str, Score] = Field(default_factory=dict)
    logit_scale: _Positive | None = None
    logit_bias: float | None = None

    @model_validator(mode="after")
    def _has_labels_for_texts(self) -> Self:
        for key in ("text_model", "logit_scale", "logit_bias"):
            if getattr(self, key) is not None and self.labels is None:
                raise ValueError(
                    f".{key}: found without labels; allowed: beside `labels`, the texts that images are "
                    "compared with"
                )
        return self

    @model_validator(mode="after")
    def _has_a_threshold_for_all(self) -> Self:
        if self.class_thresholds and self.score_threshold is None:
            raise ValueError(
                ".class_thresholds: found without score_threshold, which is that of all other classes; "
                "allowed: both (score_threshold: 1 keeps no other class)"
            )
        return self


class ClassifierSpec(ClassesSpec):
    """The model that says what an image shows, overall.

    Attributes:
        top_k: number of classes to keep in the labels table for an image, best first.
    """

    task = CLASSIFY
    model: str = Field("efficientnet_lite0", min_length=1)
    top_k: int = Field(5, ge=1, le=1000)

    @property
    def tables(self) -> tuple[str, ...]:
        """Where it has thresholds, the classes above them are tags."""
        return () if self.score_threshold is None else (TAG.table or "",)

    def what_is_kept(self, classes: int) -> str:
        """See `ModelSpec.what_is_kept`."""
        kept = f"top {min(self.top_k, classes)}"
        return kept if self.score_threshold is None else f"{kept}, tags: {above(self)}"


class TilesSpec(Section):
    """How an image is cut into tiles, which the detector gets one by one, beside the whole image.

    Attributes:
        size: pixels of a side of a tile, which is a square; an image that fits into one is not cut.
        overlap: part of a tile's side that its neighbour has as well, at least: 0 to 0.5.
    """

    size: int = Field(1024, ge=64, le=16_384)
    overlap: float = Field(0.2, ge=0, le=0.5)

    @property
    def step(self) -> int:
        """Pixels from a tile to its neighbour, at most."""
        return self.size - math.ceil(self.size * self.overlap)

    def most_in(self, pixels: int) -> int:
        """The most tiles of an image of so many pixels whose sides are at least a tile's: two long rows."""
        return 2 * (1 + math.ceil(pixels / self.size / self.step))


def _is_a_section(tiles: object) -> object:
    """Refuses what cannot be the section, with an example of one that can."""
    if tiles is None or isinstance(tiles, dict | TilesSpec):
        return tiles
    raise ValueError(
        f"found {value_text(tiles)}; allowed: keys and values, as in {{size: 1024, overlap: 0.2}}; "
        "or null for no tiles"
    )


class DetectorSpec(PromptedSpec):
    """The model that says which objects are in an image, and where.

    Attributes:
        class_map: a file (path or URL) of other names for its classes.
        layout: of an ONNX file: what its inputs and outputs are, by the name of models that have it, such as
            "yolov8"; None: as the file shows.
        score_threshold: score that a box must exceed, 0 to 1.
        class_thresholds: the same for individual classes, by name.
        nms_iou: boxes of one class that overlap more than this are one object, 0 to 1; None: the model's own.
        max_boxes: the most boxes kept in an image, best first; None: the model's own.
        tiles: how an image is cut, so that small objects are found; None: it is not.
    """

    task = DETECT
    model: str = Field("nanodet_g", min_length=1)
    class_map: _ClassMap = None
    layout: str | None = Field(None, min_length=1)
    score_threshold: Score = 0.4
    class_thresholds: dict[str, Score] = Field(default_factory=dict)
    nms_iou: Score | None = None
    max_boxes: int | None = Field(None, ge=1, le=10_000)
    tiles: Annotated[TilesSpec | None, BeforeValidator(_is_a_section)] = None

    def what_is_kept(self, classes: int) -> str:  # noqa: ARG002 - the face of all models
        """See `ModelSpec.what_is_kept`."""
        if self.tiles is None:
            return above(self)
        return f"{above(self)}, tiles of {self.tiles.size} pixels, overlap {self.tiles.overlap:g}"


class EmbedderSpec(PairSpec, BoxesSpec):
    """The model that turns an image, or each object, into a vector, near to those of what looks alike.

    Attributes:
        normalize: whether each vector has length 1, so that a dot product is the cosine similarity.
    """

    task = EMBED
    normalize: bool = True

    @property
    def tables(self) -> tuple[str, ...]:
        """Vectors of objects have a table of their own."""
        return (OBJECT_EMBEDDINGS,) if self.boxes else super().tables

    def what_is_kept(self, classes: int) -> str:  # noqa: ARG002 - the face of all models
        """See `ModelSpec.what_is_kept`."""
        kept = "length 1" if self.normalize else "as the model gives it"
        return "; ".join(filter(None, (kept, self.what_it_gets())))


class TaggerSpec(ClassesSpec, BoxesSpec):
    """A further classifier, over the same pixels, or over each object.

    Attributes:
        top_k: the most tags of an image, or of an object, best first; None: all above the threshold; without
            one 5.
    """

    task = TAG
    top_k: int | None = Field(None, ge=1, le=1000)

    @property
    def most(self) -> int | None:
        """The most tags of an image; None: all above the threshold."""
        return 5 if self.top_k is None and self.score_threshold is None else self.top_k

    def what_is_kept(self, classes: int) -> str:
        """See `ModelSpec.what_is_kept`."""
        top = [] if self.most is None else [f"top {min(self.most, classes)}"]
        kept = ", ".join(top + ([] if self.score_threshold is None else [above(self)]))
        return "; ".join(filter(None, (kept, self.what_it_gets())))


def has_labels(spec: ModelSpec) -> bool:
    """Whether a model's classes are texts that the job states."""
    return isinstance(spec, PromptedSpec) and spec.labels is not None


def boxes_of(spec: ModelSpec) -> BoxChoice | None:
    """The boxes that a model gets; None: it gets whole images."""
    return spec.boxes if isinstance(spec, BoxesSpec) else None


def above(spec: ClassesSpec | DetectorSpec) -> str:
    """The scores that are kept, in words."""
    own = ", ".join(f"{name} {score:g}" for name, score in spec.class_thresholds.items())
    return f"score above {spec.score_threshold:g}" + (f" ({own})" if own else "")
