"""The halves of a CLIP or SigLIP as two ONNX files: one gives vectors of images, the other of texts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from schemas.exceptions import ModelError
from schemas.models import EncodedTexts
from schemas.tasks import ClassesSpec, PairSpec
from workers.models.model import EmbedderModel, ZeroShotModel, require_finite
from workers.models.onnx.detector import outputs_text
from workers.models.onnx.file import OnnxFile, Port, read_onnx
from workers.models.onnx.layouts import Shape
from workers.models.onnx.network import CPU, OnnxFileNetwork, array_of, plain, session_of
from workers.models.onnx.scores import OneOutput, is_row
from workers.models.preprocess import Size
from workers.models.transformers.folder import Folder, opened_tokenizer
from workers.models.transformers.network import Architecture
from workers.models.transformers.texts import (
    TextEncoder,
    Tokens,
    encode_labels,
    tokenizer_of,
    tokens_of,
)
from workers.models.zero_shot import assert_same_width, classifier_of_texts
from workers.storage.uris import absolute_uri, file_beside

IMAGES, TEXTS = "image_embeds", "text_embeds"
"""What exports call the vectors in the space of images and texts."""

POOLED = "pooler_output"
"""What they call SigLIP's, and CLIP's before the projection into that space."""

CLIP_SCALE = 100.0
"""What CLIP's cosines are multiplied by: its training bounds the factor, and released models reach that."""

MAX_TOKENS = 8192
"""More than that is what a tokenizer says that does not know how many a text may have."""

_LOGARITHM = 10
"""A factor below is probably meant to be one's logarithm, as files of tensors have it."""

_READ_BOTH = (
    "python -c \"from safetensors import safe_open; f = safe_open('model.safetensors', 'pt'); "
    "print('logit_scale:', f.get_tensor('logit_scale').exp().item(), 'logit_bias:', "
    "f.get_tensor('logit_bias').item())\""
)


class OnnxTexts:
    """The half for texts in an ONNX file, with the face of a network of transformers'.

    Args:
        file: the file.
        is_projected: whether its vectors have to be called otherwise than `POOLED`; see `vector_output`.

    Attributes:
        length: the tokens of a text that the file is made for; None: any.

    Raises:
        ModelError: it is no half for texts, or ONNX Runtime cannot compute it.
    """

    def __init__(self, file: OnnxFile, *, is_projected: bool) -> None:
        self._name, self._is_projected = file.name, is_projected
        self._ports = _text_ports(file)
        self._batch, self.length = self._ports["ids"].shape
        self._outputs = [output.name for output in file.outputs]
        self._session = session_of(file.data, file.name, CPU, torch.get_num_threads(), file.sha256)

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Tensor
    ) -> Tensor:
        """The vectors of texts, float32 (n, width).

        Args:
            input_ids: their tokens, int64 (n, tokens).
            attention_mask: of the same shape, 0 where nothing is; None: all is there.
        """
        values = {
            "ids": input_ids,
            "mask": torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            "positions": torch.arange(input_ids.shape[1]).expand_as(input_ids),
            "types": torch.zeros_like(input_ids),
        }
        size = self._batch or len(input_ids)
        starts = range(0, len(input_ids), size)
        parts = [{kind: each[start : start + size] for kind, each in values.items()} for start in starts]
        return torch.cat([self._run(part, size) for part in parts])

    def _run(self, values: Mapping[str, Tensor], size: int) -> Tensor:
        """The vectors of up to as many texts as the file takes."""
        count = len(values["ids"])
        feeds = {port.name: array_of(values[kind], port.dtype, size) for kind, port in self._ports.items()}
        answers = dict(zip(self._outputs, self._session.run(None, feeds), strict=True))
        shapes = {name: tuple(answer.shape) for name, answer in answers.items()}
        output = vector_output(self._name, shapes, "text", is_projected=self._is_projected)
        return torch.from_numpy(plain(answers[output][:count])).flatten(1)


def _text_ports(file: OnnxFile) -> dict[str, Port]:
    """The inputs of a half for texts, by what they get.

    Raises:
        ModelError: it has others.
    """
    ports = {_kind_of(port, alone=len(file.inputs) == 1): port for port in file.inputs}
    wrong = [port for port in file.inputs if len(port.shape) != 2 or port.dtype not in ("int64", "int32")]
    if wrong or "" in ports or "ids" not in ports or len(ports) < len(file.inputs):
        raise ModelError(
            f"{file.name} is no half for texts: found the inputs "
            f"{', '.join(map(str, file.inputs)) or 'none'}; allowed: input_ids (n, tokens), int64 or int32, "
            "and with it attention_mask, position_ids and token_type_ids"
        )
    return ports


def _kind_of(port: Port, *, alone: bool) -> str:
    """What an input gets, by its name; "": not known."""
    kinds = {"attention_mask": "mask", "position_ids": "positions", "token_type_ids": "types"}
    if alone or port.name in ("input_ids", "text", "tokens", "input", "ids"):
        return "ids"
    return kinds.get(port.name, "")


def vector_output(name: str, shapes: Mapping[str, Shape], of: str, *, is_projected: bool) -> str:
    """The output that has the vectors of images or texts.

    Args:
        name: of the file.
        shapes: of its outputs, by name.
        of: "image" or "text".
        is_projected: whether `POOLED` is none, as in a CLIP.

    Raises:
        ModelError: none has, or several may have.
    """
    own = IMAGES if of == "image" else TEXTS
    rows = [output for output, shape in shapes.items() if is_row(shape)]
    output = next((each for each in (own, POOLED) if each in rows), rows[0] if len(rows) == 1 else None)
    if output is None:
        raise ModelError(
            f"{name} gives no vector of {'an' if of == 'image' else 'a'} {of}: found {outputs_text(shapes)}; "
            f"allowed: one output (n, numbers), or one called {own} or {POOLED}"
        )
    if is_projected and output == POOLED:
        raise ModelError(
            f"{name} has {POOLED} and no {own}: it was exported without the projection into the space that "
            f"images and texts share; export {'CLIPVisionModel' if of == 'image' else 'CLIPTextModel'}"
            "WithProjection (a SigLIP's is called so: state its logit_scale and logit_bias)"
        )
    return output


@dataclass(frozen=True)
class Scoring:
    """How the cosine of an image and a label becomes a score.

    Attributes:
        is_siglip: whether each label is scored by itself.
        scale: what it is multiplied by.
        bias: what is added then.
        notes: sentences on what may not be as intended.
    """

    is_siglip: bool
    scale: float
    bias: float
    notes: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, object]:
        """What decides scores."""
        return {"logit_scale": self.scale, "logit_bias": self.bias}


def scoring_of(spec: ClassesSpec, name: str, *, is_siglip: bool | None = None) -> Scoring:
    """How scores are made, which ONNX files do not say.

    Args:
        spec: the section of the job spec.
        name: of the model.
        is_siglip: whether it is one; None: it is where the spec has a bias or asks for a sigmoid.

    Raises:
        ModelError: a number is missing, or would change nothing.
    """
    scale, bias, notes = spec.logit_scale, spec.logit_bias, list[str]()
    known = is_siglip is not None
    siglip = is_siglip if is_siglip is not None else bias is not None or spec.score_type == "sigmoid"
    if siglip and (scale is None or bias is None):
        lacks = " and ".join(key for key in ("logit_scale", "logit_bias") if getattr(spec, key) is None)
        raise ModelError(
            f"{name}: the ONNX files of a SigLIP do not hold what makes scores of cosines; add {lacks}, "
            f"which the files that it was exported from have:\n  {_READ_BOTH}"
        )
    if not siglip and bias is not None:
        raise ModelError(f"logit_bias: found for {name}, a CLIP, whose softmax no bias changes; leave it out")
    if not known and spec.score_type is None and scale is None:
        notes = [
            f"labels: {name} is taken for a CLIP: softmax over {CLIP_SCALE:g} x cosine; `logit_scale: "
            f"{CLIP_SCALE:g}` says so, and for a SigLIP logit_scale and logit_bias say what it has"
        ]
    if scale is not None and scale < _LOGARITHM:
        notes.append(
            f"logit_scale is {scale:g}, which looks like a logarithm; it is what cosines are multiplied by, "
            "about 100"
        )
    return Scoring(siglip, scale or CLIP_SCALE, bias or 0.0, tuple(notes))


def classifier_of(features: EmbedderModel, texts: EncodedTexts, scoring: Scoring) -> ZeroShotModel:
    """A half for images as a classifier of encoded labels."""
    return classifier_of_texts(features, texts, scoring.scale, scoring.bias, is_siglip=scoring.is_siglip)


@torch.inference_mode()
def image_features(network: OnnxFileNetwork, size: Size, *, is_projected: bool) -> tuple[OneOutput, int]:
    """The half for images, and how many numbers it gives.

    Args:
        network: the file's.
        size: height and width of its input.
        is_projected: see `vector_output`.

    Raises:
        ModelError: it takes other inputs, or gives no vector.
    """
    if network.others:
        raise ModelError(
            f"{network.name} wants more than images: its input {', '.join(map(str, network.others))}; "
            "allowed: the half for images alone, as `vision_model.onnx`"
        )
    own = network.static_size
    if any(have is not None and have != want for have, want in zip(own, size, strict=True)):
        raise ModelError(
            f"{network.name} takes {'x'.join(str(side or 'any') for side in own)} (height x width), but "
            f"images are made {'x'.join(map(str, size))}; allowed: the settings that belong to that export"
        )
    answers = network.answers(size)
    output = vector_output(
        network.name, {k: tuple(v.shape) for k, v in answers.items()}, "image", is_projected=is_projected
    )
    try:
        require_finite([answers[output]])
    except FloatingPointError:
        raise ModelError(
            f"{network.name} answers with NaN or infinity for an image of noise; export it again, in float32"
        ) from None
    return OneOutput(network, output), answers[output].flatten(1).shape[1]


def half_of(folder: Folder, name: str) -> OnnxFile:
    """One of the two ONNX files of a folder.

    Raises:
        ModelError: it cannot be read, or is none.
    """
    try:
        file = read_onnx(str(folder.path / name))
    except ModelError as error:
        raise ModelError(str(error).replace(str(folder.path), folder.location)) from None
    return replace(file, location=f"{folder.location}/{name}")


@dataclass(frozen=True)
class TextFiles:
    """The half for texts of a job spec, which is a file of its own.

    Attributes:
        encode: with it.
        sha256: of the file.
        tokenizer_sha256: of the files of its tokenizer.
    """

    encode: TextEncoder
    sha256: str
    tokenizer_sha256: str

    @property
    def settings(self) -> dict[str, object]:
        """What the vectors of texts are known by."""
        return {"text_model": self.sha256}


def text_files(spec: PairSpec, *, is_projected: bool = False) -> TextFiles:
    """The half for texts that a job spec names.

    Args:
        spec: with `text_model`.
        is_projected: see `vector_output`.

    Raises:
        ModelError: the file or the tokenizer cannot be read or used.
    """
    assert spec.text_model is not None
    file = read_onnx(spec.text_model)
    network = OnnxTexts(file, is_projected=is_projected)
    with opened_tokenizer(_tokenizer_folder(spec)) as folder:
        tokenizer = tokenizer_of(folder, "name its folder as `tokenizer`")
        if tokenizer.pad_token is None:
            raise ModelError(
                f"the tokenizer of {folder.location} ({', '.join(folder.tokenizer)}) does not say what texts "
                "are filled up with (pad_token); put its tokenizer_config.json there, too"
            )
        length = network.length or tokenizer.model_max_length
        if length > MAX_TOKENS:
            raise ModelError(
                f"{file.name} takes texts of any length, and the tokenizer of {folder.location} does not say "
                "how many tokens it was trained with; write it into tokenizer_config.json: "
                '"model_max_length": 77 for a CLIP, 64 for a SigLIP'
            )
        tokens = Tokens(tokenizer, file.name, int(length), is_filled=True)
        folder.assert_unchanged()
    return TextFiles(TextEncoder(tokens, network, file.name), file.sha256, folder.tokenizer_sha256)


def _tokenizer_folder(spec: PairSpec) -> str:
    """The folder of the tokenizer's files."""
    if spec.tokenizer is not None and not spec.tokenizer.endswith(".json"):
        return spec.tokenizer
    return file_beside(absolute_uri(spec.tokenizer or spec.text_model or ""), "")


def encoded_labels(
    spec: ClassesSpec, encode: TextEncoder, tokenizer_sha256: str, scoring: Scoring
) -> EncodedTexts:
    """The labels of a job spec, encoded by a half for texts, with what makes scores of them."""
    texts = encode_labels(spec, encode, tokenizer_sha256, is_siglip=scoring.is_siglip)
    return replace(
        texts, settings={**texts.settings, **scoring.settings}, notes=(*texts.notes, *scoring.notes)
    )


def without_labels(files: TextFiles, width: int) -> EncodedTexts:
    """What an embedder's half for texts is known by.

    Args:
        files: the half.
        width: of the images' vectors.

    Raises:
        ModelError: texts have vectors of another.
    """
    assert_same_width(width, files.encode(["a photo"]).shape[1])
    return EncodedTexts(labels=(), vectors=(), tokens=(), settings=files.settings)


def folder_encoder(folder: Folder, architecture: Architecture) -> TextEncoder:
    """What encodes texts with the half for texts in a folder of two ONNX files, opened with its tokenizer."""
    assert folder.pair is not None
    network = OnnxTexts(half_of(folder, folder.pair[1]), is_projected=not architecture.is_siglip)
    return TextEncoder(tokens_of(folder, architecture, network.length), network, folder.location)
