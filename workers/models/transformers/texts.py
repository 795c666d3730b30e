"""The half of a Hugging Face folder for texts: its tokenizer, and labels as its network encodes them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.exceptions import ModelError
from schemas.models import EncodedTexts
from schemas.tasks import DETECT, PromptedSpec
from schemas.words import counted
from workers.models.model import versions
from workers.models.settings import given_labels
from workers.models.transformers.folder import TOKENIZERS, Folder
from workers.models.transformers.network import Architecture, quiet_and_offline
from workers.models.zero_shot import put_into, unit
from workers.printable import short_line

PROMPT = "This is a photo of {}."
"""What transformers' pipeline makes of a label for a classifier."""

SIGLIP_TOKENS = 64
"""What SigLIP's texts are filled up to, as in its training."""

_AT_ONCE = 64
"""Texts that are encoded at once."""


def tokenizer_of(folder: Folder, advice: str = "copy the whole folder") -> Any:
    """The tokenizer, transformers' own, of a folder that was opened with it.

    Args:
        folder: the folder.
        advice: what to do where there is none.

    Raises:
        ModelError: the folder has none, or it cannot be built of its files.
    """
    if not set(folder.tokenizer) & set(TOKENIZERS):
        raise ModelError(
            f"there is no tokenizer in {folder.location} ({', '.join(TOKENIZERS[:-1])} or {TOKENIZERS[-1]}), "
            f"which makes numbers of texts; {advice}, or write it with "
            "`AutoTokenizer.from_pretrained(THE_BASE_MODEL).save_pretrained(FOLDER)`"
        )
    with quiet_and_offline() as transformers:
        try:
            return transformers.AutoTokenizer.from_pretrained(
                str(folder.path), local_files_only=True, trust_remote_code=False
            )
        except ImportError as error:
            raise ModelError(
                f"the tokenizer of {folder.location} needs a package that is not installed "
                f"({short_line(str(error))}); `pip install 'raylabel[transformers]'`"
            ) from None
        except Exception as error:  # transformers and tokenizers raise anything
            raise ModelError(
                f"the tokenizer of {folder.location} ({', '.join(folder.tokenizer)}) cannot be used: "
                f"{type(error).__name__}: {short_line(str(error), 300)}"
            ) from None


def encode_labels(
    spec: PromptedSpec,
    encoder: "TextEncoder | TokenEncoder",
    tokenizer_sha256: str,
    *,
    is_siglip: bool = False,
) -> EncodedTexts:
    """The labels of a job spec, encoded by the text half of a network.

    Args:
        spec: with labels.
        encoder: that half.
        tokenizer_sha256: of its tokenizer's files.
        is_siglip: whether each label is scored by itself.

    Raises:
        ModelError: the labels cannot be read, are blank or doubled, or too long; the tokenizer or the network
            fails on them.
    """
    labels = given_labels(spec)
    assert labels is not None
    templates = _templates(spec)
    texts = [text for label in labels for text in put_into(templates, label)]
    if isinstance(encoder, TokenEncoder):
        encoded = [encoder(text) for text in texts]
        vectors, tokens = tuple(vector for vector, _ in encoded), tuple(numbers for _, numbers in encoded)
    else:
        means = encoder(texts).view(len(labels), len(templates), -1).mean(dim=1)
        vectors, tokens = tuple(unit(means).numpy()), ()
    return EncodedTexts(
        labels=labels,
        vectors=vectors,
        tokens=tokens,
        settings={"prompt": templates, "tokenizer": f"{tokenizer_sha256}, {versions('tokenizers')}"},
        notes=(
            *_notes(spec, templates, labels, is_siglip, sees_tokens=isinstance(encoder, TokenEncoder)),
            *_alike(labels, encoder.tokens.numbers(texts)),
        ),
    )


def _templates(spec: PromptedSpec) -> list[str]:
    """What is made of each label."""
    if spec.prompt is None:
        return ["{}" if spec.task == DETECT else PROMPT]
    templates = [spec.prompt] if isinstance(spec.prompt, str) else spec.prompt
    if spec.task == DETECT and len(templates) > 1:
        raise ModelError(f"prompt: found {len(templates)} templates for a detector; allowed: one")
    return templates


def _notes(
    spec: PromptedSpec, templates: list[str], labels: Sequence[str], is_siglip: bool, *, sees_tokens: bool
) -> list[str]:
    if spec.task != DETECT:
        alone = len(labels) == 1 and not is_siglip and getattr(spec, "score_type", None) is None
        return [f"labels: {labels[0]!r} is the only one, so that its score is always 1"] if alone else []
    if not sees_tokens:
        return []
    without = [label for label in labels if not templates[0].replace("{}", label).rstrip().endswith(".")]
    if not without:
        return []
    return [
        f"labels: {spec.model} was trained on texts that end with a dot, and takes the words of "
        f'{short_line(repr(without[0]))} one by one without it; `prompt: "{{}}."` adds it'
    ]


def _alike(labels: Sequence[str], numbers: Sequence[list[int]]) -> list[str]:
    """What to say of labels that are the same to a tokenizer, such as "Cat" and "cat" where it has no case.

    Args:
        labels: in the order of the job spec.
        numbers: of the tokens of all texts that are made of them, label by label.
    """
    each = len(numbers) // len(labels)
    first: dict[str, str] = {}
    pairs = []
    for place, label in enumerate(labels):
        other = first.setdefault(str(numbers[place * each : (place + 1) * each]), label)
        if other != label:
            pairs.append(f"{other!r} and {label!r}")
    if not pairs:
        return []
    return [
        f"labels: {short_line(', '.join(pairs), 200)} are the same to the model, and so are their scores; "
        "leave one out, or give both one name with `class_map`"
    ]


class Tokens:
    """Texts as the numbers that a network gets.

    Args:
        tokenizer: of transformers'.
        location: what is named in messages.
        most: tokens that a text may have.
        is_filled: whether texts are filled up to so many; else to the longest of those that are encoded at
            once.
    """

    def __init__(self, tokenizer: Any, location: str, most: int, *, is_filled: bool) -> None:
        self._tokenizer = tokenizer
        self._location = location
        self._most = most
        filled = {"padding": "max_length", "max_length": most, "truncation": True}
        self._padding: dict[str, Any] = filled if is_filled else {"padding": True}

    def __call__(self, texts: Sequence[str]) -> Any:
        """The network's arguments for some texts: tensors by name, int64 (texts, tokens).

        Raises:
            ModelError: a text is too long, or the tokenizer fails.
        """
        with failures_in(self._location):
            for text, own in zip(texts, self.numbers(texts), strict=True):
                if len(own) > self._most:
                    raise ModelError(
                        f"{short_line(repr(text))} has {counted(len(own), 'token')}, but the text half of "
                        f"{self._location} takes at most {self._most}; shorten it"
                    )
            return self._tokenizer(list(texts), return_tensors="pt", **self._padding)

    def numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers of each text's tokens, without padding.

        Raises:
            ModelError: the tokenizer fails.
        """
        with failures_in(self._location):
            numbers: list[list[int]] = self._tokenizer(list(texts))["input_ids"]
        return numbers


def tokens_of(folder: Folder, architecture: Architecture, length: int | None = None) -> Tokens:
    """What makes numbers of texts for a folder's network, as transformers' pipeline does it.

    Args:
        folder: opened with its tokenizer.
        architecture: of the folder.
        length: tokens that its half for texts is made for; None: any.
    """
    most = _most_tokens(architecture)
    is_filled = architecture.is_siglip or length is not None  # as in SigLIP's training
    return Tokens(tokenizer_of(folder), folder.location, length or most, is_filled=is_filled)


@contextmanager
def failures_in(location: str) -> Iterator[None]:
    """Says that the text half of a folder fails, where it raises anything in the block."""
    try:
        with quiet_and_offline():
            yield
    except ModelError:
        raise
    except Exception as error:  # tokenizers and networks raise anything
        raise ModelError(
            f"the text half of {location} fails: {type(error).__name__}: {short_line(str(error), 300)}"
        ) from None


def assert_vector(vector: Tensor, text: str, location: str) -> None:
    """Refuses what a folder's half for texts makes of a text, where it is no numbers: its weights are broken.

    Raises:
        ModelError: it has NaN or infinite values.
    """
    if not bool(vector.isfinite().all()):
        raise ModelError(
            f"the text half of {location} makes no vector of {short_line(repr(text))}, but NaN or infinite "
            "values; take the weights of an earlier step of the training, or convert them again"
        )


class TextEncoder:
    """Encodes texts with the text half of a network of CLIP's, SigLIP's or OWL's kind.

    Args:
        tokens: makes its numbers.
        network: with its text half: it has `get_text_features`.
        location: what is named in messages.

    Attributes:
        tokens: as given.
    """

    def __init__(self, tokens: Tokens, network: Any, location: str) -> None:
        self.tokens = tokens
        self._network = network
        self._location = location

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The vectors of texts, float32 (n, width), each of length 1.

        Raises:
            ModelError: a text is too long, or the tokenizer or the network fails.
        """
        parts = [self._features(texts[i : i + _AT_ONCE]) for i in range(0, len(texts), _AT_ONCE)]
        vectors = unit(torch.cat(parts).float())
        for text, vector in zip(texts, vectors, strict=True):
            assert_vector(vector, text, self._location)
        return vectors

    def _features(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokens(texts)
        with failures_in(self._location):
            output = self._network.get_text_features(**tokens)
        features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
        return features


class TokenEncoder:
    """Encodes texts token by token, with the text half of Grounding DINO.

    Args:
        folder: opened with its tokenizer.
        architecture: of the folder.
        network: whole.

    Attributes:
        tokens: makes numbers of texts.
    """

    def __init__(self, folder: Folder, architecture: Architecture, network: Any) -> None:
        self.tokens = tokens_of(folder, architecture)
        self._network = network
        self._location = folder.location

    @torch.inference_mode()
    def __call__(self, text: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The vectors of a text's tokens, float32 (tokens, width), and their numbers, int64 (tokens,).

        Raises:
            ModelError: the text is too long, or the tokenizer or the network fails.
        """
        tokens = self.tokens([text])
        with failures_in(self._location):
            vectors = _token_vectors(self._network, tokens)
        assert_vector(vectors, text, self._location)
        return vectors[0].float().numpy(), tokens["input_ids"][0].numpy()


def encoder_of(folder: Folder, architecture: Architecture, network: Any) -> TextEncoder | TokenEncoder:
    """What encodes texts with the text half of a whole network."""
    if architecture.sees_tokens:
        return TokenEncoder(folder, architecture, network)
    tokens = tokens_of(folder, architecture)
    return TextEncoder(tokens, _with_text_half(network, architecture), folder.location)


def _with_text_half(network: Any, architecture: Architecture) -> Any:
    """The part of a network that has the half for texts: a detector has it inside."""
    return getattr(network, network.base_model_prefix) if architecture.task == DETECT else network


def _token_vectors(network: Any, tokens: Any) -> Tensor:
    """What the text backbone of Grounding DINO gives for tokens, as its network calls it."""
    seen: list[Tensor] = []

    def take(_: Any, __: Any, output: Any) -> None:
        seen.append(output.last_hidden_state)
        raise _SeenError  # texts come first: the image is not looked at

    hook = network.model.text_backbone.register_forward_hook(take)
    try:
        network(pixel_values=torch.zeros(1, 3, 64, 64), **tokens)
    except _SeenError:
        pass
    finally:
        hook.remove()
    return seen[0]


class _SeenError(Exception):
    """The vectors that were wanted are there."""


class Encoded(nn.Module):
    """In place of a text backbone: what it gave for a text.

    Attributes:
        vectors: float32 (tokens, width), of the text that is looked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.vectors = torch.zeros(0, 0)

    def forward(self, tokens: Tensor, *_: Any, **__: Any) -> Any:
        """The same for each image, (n, tokens, width)."""
        return SimpleNamespace(last_hidden_state=self.vectors.expand(len(tokens), -1, -1))


def drop_texts(network: Any, architecture: Architecture) -> None:
    """Takes the half for texts out of a network, in place: what is left computes images."""
    if architecture.sees_tokens:
        network.model.text_backbone = Encoded()
        return
    whole = _with_text_half(network, architecture)
    for part in ("text_model", "text_projection"):
        whole._modules.pop(part, None)


def drop_images(network: Any) -> None:
    """Takes the half for images out of a network of CLIP's or SigLIP's kind, in place."""
    for part in ("vision_model", "visual_projection"):
        network._modules.pop(part, None)


def _most_tokens(architecture: Architecture) -> int:
    """The tokens that a text may have."""
    config = architecture.config
    if architecture.sees_tokens:
        return int(config.max_text_len)
    most = int(config.text_config.max_position_embeddings)
    return min(most, SIGLIP_TOKENS) if architecture.is_siglip else most
