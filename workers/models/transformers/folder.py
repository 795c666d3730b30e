"""A Hugging Face folder: the files that a model is built from, checked, wherever the folder lies."""

import hashlib
import json
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from schemas.exceptions import ModelError
from schemas.words import counted
from workers.models.weights import assert_expected, file_sha256
from workers.printable import message_of, short_line
from workers.storage.filesystem import is_denied, local_path, open_file
from workers.storage.uris import absolute_uri, clean_uri, file_in, is_local

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
"""Where a model for images and texts may have what else is in `preprocessor_config.json`."""

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

PAIRS = (
    ("onnx/vision_model.onnx", "onnx/text_model.onnx"),
    ("vision_model.onnx", "text_model.onnx"),
    ("visual/model.onnx", "textual/model.onnx"),
    ("visual.onnx", "textual.onnx"),
)
"""The halves of a CLIP or SigLIP for images and for texts, as folders have them that lack `WEIGHTS`."""

_BESIDE = ("_data", ".data")
"""What follows the name of an ONNX file in that of the file with its tensors."""

TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
"""The files of which a tokenizer has one at least."""

TOKENIZER = (
    *(*TOKENIZERS, "merges.txt", "sentencepiece.bpe.model"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
"""All that a tokenizer may be built from."""

MAX_JSON = 16 * 2**20
MAX_TOKENIZER = 256 * 2**20
MAX_WEIGHTS = 64 * 2**30
"""Bytes that all files of settings, all of the tokenizer, and all of tensors together may have."""

_LIMITS = {".json": MAX_JSON, "tokenizer": MAX_TOKENIZER, ".safetensors": MAX_WEIGHTS, ".onnx": MAX_WEIGHTS}

MAX_SHARDS = 1000

_SHARD = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)
"""A file of tensors that an index may name: it is in the same folder."""

_CONVERT = (
    "from transformers import {architecture} as M; "
    "M.from_pretrained({folder!r}, use_safetensors=False).save_pretrained({folder!r})"
)
"""Writes the tensors of a folder with pickles as safetensors."""


@dataclass(frozen=True)
class Folder:
    """The files of a Hugging Face folder, on this machine for as long as it is open.

    Attributes:
        location: the folder's absolute path or URL, without credentials.
        path: of a folder that has only the files that are used, under their names.
        files: their names, sorted.
        sha256: see `digest_of`.
        config: of the network, from `config.json`.
        preprocessor: of the image processor, from `preprocessor_config.json`.
        tensors: the shape of each tensor in the files, by name.
        tokenizer: names of the files of its tokenizer, sorted; none where it was opened without.
        tokenizer_sha256: of these; see `digest_of`.
        pair: of a folder of two ONNX files their names, one of `PAIRS`; else None, and it has tensors.
    """

    location: str
    path: Path
    files: tuple[str, ...]
    sha256: str
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    tensors: Mapping[str, tuple[int, ...]]
    tokenizer: tuple[str, ...] = ()
    tokenizer_sha256: str = ""
    pair: tuple[str, str] | None = None

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum((self.path / name).stat().st_size for name in self.files)

    def assert_unchanged(self) -> None:
        """Raises ModelError if a file was changed since the folder was opened; to call once it is read."""
        digests = digest_of(self.path, self.files), self.tokenizer and digest_of(self.path, self.tokenizer)
        if digests != (self.sha256, self.tokenizer and self.tokenizer_sha256):
            raise ModelError(f"the folder {self.location} was changed while it was read; begin again")


@contextmanager
def opened(
    location: str,
    expected: str | None = None,
    first: Callable[[Mapping[str, Any], str], object] | None = None,
    *,
    with_tokenizer: bool = False,
) -> Iterator[Folder]:
    """The files of a folder, checked; those of a remote one are copied for the length of the block.

    Taken are `config.json`, `preprocessor_config.json` (or the same from `processor_config.json`), and
    `model.safetensors` or its index and the files that this names, or else two ONNX files. No other file is
    looked into.

    Args:
        location: a path or any fsspec URL.
        expected: the sha256 that the folder must have.
        first: is given what is in `config.json`, and the folder's name, before another file is asked for:
            what it is goes before what it lacks.
        with_tokenizer: whether the files of its tokenizer are taken, too, if there are some. They are not in
            the folder's sha256, so that it is the same whatever the folder is used for.

    Raises:
        ModelError: a file is missing, cannot be read, or is not what its name says; or the folder has another
            sha256 than the expected one.
    """
    name = clean_uri(absolute_uri(location)).rstrip("/")
    _assert_folder(location, name)
    with tempfile.TemporaryDirectory(prefix="raylabel-") as temporary:
        files = _Files(location, name, Path(temporary))
        config = _config(files)
        _assert_described(files, config)
        if first is not None:
            first(config, name)
        preprocessor = _preprocessor(files)
        pair = _take_weights(files, config)
        names = tuple(sorted(files.taken))
        digest = digest_of(files.path, names)
        assert_expected(name, digest, expected, "the folder")
        own = [file for file in names if file.endswith(".safetensors")]
        tensors = {} if pair else _tensors(files, own)
        tokenizer = _take_tokenizer(files) if with_tokenizer else ()
        tokens = digest_of(files.path, tokenizer) if tokenizer else ""
        yield Folder(name, files.path, names, digest, config, preprocessor, tensors, tokenizer, tokens, pair)


@contextmanager
def opened_tokenizer(location: str) -> Iterator[Folder]:
    """The files of a tokenizer alone, as `opened` has them.

    Args:
        location: of the folder that they are in, a path or any fsspec URL.

    Raises:
        ModelError: a file cannot be read.
    """
    name = clean_uri(absolute_uri(location)).rstrip("/")
    with tempfile.TemporaryDirectory(prefix="raylabel-") as temporary:
        files = _Files(location, name, Path(temporary))
        tokenizer = _take_tokenizer(files)
        tokens = digest_of(files.path, tokenizer)
        yield Folder(name, files.path, (), digest_of(files.path, ()), {}, {}, {}, tokenizer, tokens)


def digest_of(path: Path, names: tuple[str, ...]) -> str:
    """The sha256 of some files of a folder: that of the lines which `sha256sum` prints for them.

    `cd FOLDER; sha256sum config.json model.safetensors preprocessor_config.json | sha256sum` prints it.

    Args:
        path: of the folder.
        names: of the files, sorted.
    """
    lines = (f"{file_sha256(str(path / name), 'the file')}  {name}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class _Files:
    """Takes files of a folder, by links or copies.

    Args:
        location: of the folder, as it was written.
        name: of the folder in messages.
        path: where links and copies are put.

    Attributes:
        taken: names of the files that were there.
    """

    def __init__(self, location: str, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.taken: list[str] = []
        self._denied: dict[str, str] = {}
        self._location = location
        self._left = dict(_LIMITS)

    def take(self, name: str) -> bool:
        """Links or copies a file; whether it is there, as far as its store says.

        Raises:
            ModelError: it cannot be read, or is too large.
        """
        found = self._link(name) if _on_disk(self._location) else self._copy(name)
        self.taken += [name] if found else []
        return found

    def lacks(self, name: str) -> str:
        """That there is no such file, in words."""
        if why := self._denied.get(name):
            return (
                f"{name} of {self.name} is not there, or may not be read ({why}); many stores say the same "
                "of both"
            )
        return f"there is no {name} in {self.name}"

    def has(self, name: str) -> bool:
        """Whether there is a file, which is not taken."""
        if local := _on_disk(self._location):
            return os.path.isfile(os.path.join(local, name))
        try:
            with open_file(file_in(self._location, name)):
                return True
        except Exception:  # it is only about the better message
            return False

    def json(self, name: str) -> dict[str, Any]:
        """The object in a file that was taken.

        Raises:
            ModelError: there is none in it.
        """
        where = f"{name} of {self.name}"
        try:
            value = json.loads((self.path / name).read_bytes())
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{where} is no JSON ({short_line(str(error))}); copy it again") from None
        if not isinstance(value, dict):
            raise ModelError(f"{where} holds {type(value).__name__}; expected an object: {{…}}")
        return value

    def _link(self, name: str) -> bool:
        source = Path(os.path.abspath(str(_on_disk(self._location)))) / name
        if not source.is_file():
            return False
        (self.path / name).parent.mkdir(exist_ok=True)
        try:
            with source.open("rb"):
                self._count(name, source.stat().st_size)
        except OSError as error:
            raise self._unreadable(name, error) from None
        (self.path / name).symlink_to(source)
        return True

    def _copy(self, name: str) -> bool:
        (self.path / name).parent.mkdir(exist_ok=True)
        try:
            with open_file(file_in(self._location, name)) as source, (self.path / name).open("wb") as copy:
                while data := source.read(2**20):
                    self._count(name, len(data))
                    copy.write(data)
        except FileNotFoundError:
            (self.path / name).unlink(missing_ok=True)
            return False
        except ModelError:
            raise
        except Exception as error:  # each store and protocol raises its own kind
            if not is_denied(error):
                raise self._unreadable(name, error) from None
            self._denied[name] = self._reason(error)
            (self.path / name).unlink(missing_ok=True)
            return False
        return True

    def _count(self, name: str, size: int) -> None:
        suffix = Path(name).suffix
        kind = "tokenizer" if name in TOKENIZER else suffix if suffix in _LIMITS else ".onnx"
        self._left[kind] -= size
        if self._left[kind] < 0:
            raise ModelError(
                f"{name} of {self.name} is too large: its {kind} files may have {_LIMITS[kind]:,} bytes"
            )

    def _unreadable(self, name: str, error: Exception) -> ModelError:
        return ModelError(f"{name} of {self.name} cannot be read: {self._reason(error)}")

    def _reason(self, error: Exception) -> str:
        reason = getattr(error, "strerror", None) or message_of(error, self._location, self.name)
        return str(reason or type(error).__name__)


def _on_disk(location: str) -> str | None:
    """The path of a folder on this machine; None of one in a store."""
    return location if is_local(location) else local_path(location)


def _assert_folder(location: str, name: str) -> None:
    path = _on_disk(location)
    if path is None or os.path.isdir(path):
        return
    if os.path.lexists(path):
        raise ModelError(
            f"{name} is no folder; a Hugging Face model is named by the folder that its {CONFIG} is in"
        )
    repository = re.fullmatch(r"[\w.-]+/([\w.-]+)/?", location)
    hint = (
        f"; a model of the Hub is downloaded first: `hf download {location} --local-dir {repository[1]}`, "
        f"then `model: ./{repository[1]}/`"
        if repository and not location.startswith(".")
        else ""
    )
    raise ModelError(f"there is no folder {name}{hint}")


def _config(files: _Files) -> dict[str, Any]:
    """The settings of the network.

    Raises:
        ModelError: a file is missing, is no JSON, or asks for what is never done.
    """
    if not files.take(CONFIG):
        raise ModelError(
            f"{files.lacks(CONFIG)}; a Hugging Face folder has one, beside {PREPROCESSOR} and "
            f"{WEIGHTS}, as `model.save_pretrained(FOLDER)` writes it"
        )
    config = files.json(CONFIG)
    _assert_no_code(config, CONFIG, files.name)
    if "pretrained_cfg" in config and "architecture" in config:
        raise ModelError(
            f"{files.name} is a folder of timm's: write `model: timm/{config['architecture']}` and "
            f"`weights: {files.name}/{WEIGHTS}`"
        )
    return config


def _assert_described(files: _Files, config: Mapping[str, Any]) -> None:
    """Refuses a folder of two ONNX files whose settings are not those of transformers'.

    Raises:
        ModelError: saying how the two are named.
    """
    if config.get("architectures") or any(map(files.has, (WEIGHTS, INDEX))):
        return
    if halves := next((halves for halves in PAIRS if all(map(files.has, halves))), None):
        images, texts = (file_in(files.name, half) for half in halves)
        raise ModelError(
            f"{CONFIG} of {files.name} does not describe its two ONNX files as transformers does "
            f"(architectures, such as CLIPModel); name them by themselves: `model: {images}`, `text_model: "
            f"{texts}` and `input:`, or put the original's {CONFIG} and {PREPROCESSOR} there"
        )


def _preprocessor(files: _Files) -> dict[str, Any]:
    """The settings of the image processor.

    Raises:
        ModelError: the file is missing, is no JSON, or asks for what is never done.
    """
    preprocessor: object = None
    if files.take(PREPROCESSOR):
        preprocessor = files.json(PREPROCESSOR)
    elif files.take(PROCESSOR):
        preprocessor = files.json(PROCESSOR).get("image_processor")
    if not isinstance(preprocessor, dict):
        raise ModelError(
            f"{files.lacks(PREPROCESSOR)}: how an image becomes the network's input "
            "(image_processor_type, size, do_normalize, image_mean, image_std, ...) is not known; "
            "copy it from where the model is from, or write it with "
            "`AutoImageProcessor.from_pretrained(THE_BASE_MODEL).save_pretrained(FOLDER)`"
        )
    _assert_no_code(preprocessor, PREPROCESSOR, files.name)
    return preprocessor


def _assert_no_code(config: dict[str, Any], file: str, name: str) -> None:
    """Refuses a folder whose network or processor is a program in it."""
    if config.get("auto_map"):
        raise ModelError(
            f"{file} of {name} has auto_map: the model is a program of its own, and nothing in a folder is "
            "executed; if you trust it, import it in a `module:factory` of yours"
        )


def _take_weights(files: _Files, config: dict[str, Any]) -> tuple[str, str] | None:
    """Takes the files of tensors, or else two ONNX files, whose names it returns.

    Raises:
        ModelError: there are none, or one that the index names is missing.
    """
    if files.take(WEIGHTS):
        return None
    if not files.take(INDEX):
        if pair := _take_pair(files):
            return pair
        raise ModelError(_no_weights(files, config))
    shards = files.json(INDEX).get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) and _are_names(shards.values()) else set()
    if not 1 <= len(names) <= MAX_SHARDS:
        raise ModelError(
            f"{INDEX} of {files.name} does not name the files of its tensors: expected weight_map, of 1 to "
            f"{MAX_SHARDS:,} .safetensors files in the same folder"
        )
    for name in sorted(names):
        if not files.take(name):
            raise ModelError(f"{files.lacks(name)}, which {INDEX} names; copy the whole folder")
    return None


def _take_pair(files: _Files) -> tuple[str, str] | None:
    """Takes the two ONNX files of a CLIP or SigLIP, and those of their tensors; None: there is none.

    Raises:
        ModelError: one of the two is missing.
    """
    for halves in PAIRS:
        found = [half for half in halves if files.take(half)]
        if len(found) == 1:
            (missing,) = set(halves) - set(found)
            raise ModelError(
                f"{files.lacks(missing)}, the half for {'images' if missing == halves[0] else 'texts'} "
                f"beside {found[0]}; copy both, or name files called otherwise as `model` and `text_model`"
            )
        if found:
            for beside in (f"{half}{end}" for half in halves for end in _BESIDE):
                files.take(beside)
            return halves
    return None


def _take_tokenizer(files: _Files) -> tuple[str, ...]:
    """Takes the files of the tokenizer, as far as there are some; their names, sorted.

    Raises:
        ModelError: it is a program.
    """
    before = set(files.taken)
    for name in TOKENIZER:
        files.take(name)
    names = tuple(sorted(set(files.taken) - before))
    if "tokenizer_config.json" in names:
        _assert_no_code(files.json("tokenizer_config.json"), "tokenizer_config.json", files.name)
    return names


def _are_names(values: Any) -> bool:
    return all(isinstance(value, str) and _SHARD.fullmatch(value) for value in values)


def _no_weights(files: _Files, config: dict[str, Any]) -> str:
    pickle = next((name for name in PICKLES if files.has(name)), None)
    if pickle is None:
        return f"{files.lacks(WEIGHTS)}, and no {INDEX}; copy the whole folder"
    architectures = config.get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    folder = files.name if is_local(files.name) else "FOLDER"
    code = _CONVERT.format(architecture=first if first.isidentifier() else "AutoModel", folder=folder)
    return (
        f"{files.name} has {pickle} and no {WEIGHTS}: loading a pickle may execute code. If you trust it, "
        f"write its tensors as safetensors:\n  python -c {shlex.quote(code)}"
    )


def _tensors(files: _Files, names: list[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors in some files.

    Raises:
        ModelError: a file is none of safetensors', is cut or damaged, or holds no tensor.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        path = files.path / name
        try:
            with safe_open(path, framework="pt") as file:
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            with path.open("rb") as data:
                is_pointer = data.read(23) == b"version https://git-lfs"
            why = (
                "it is a Git LFS pointer in place of the file; fetch it with `git lfs pull`"
                if is_pointer
                else f"it is cut or damaged ({short_line(str(error))}); copy it again"
            )
            raise ModelError(f"{name} of {files.name} cannot be loaded: {why}") from None
    if not shapes:
        raise ModelError(f"there is no tensor in {files.name} ({counted(len(names), 'file')})")
    return shapes
