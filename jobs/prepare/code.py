"""The code that makes a run's rows, by part of the run: what must be the same when the run is resumed.

Comments and docstrings do not count, nor do modules that no row depends on: a run resumes after they change.
One whose rows might come out otherwise is refused, with the part and the files.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from schemas.identity import PILLOW_HEIF
from schemas.models import ResolvedModel
from workers.decode.heif import installed

ROOT = Path(__file__).parent.parent.parent

READING = "reading and decoding"

PARTS: dict[str, tuple[str, ...]] = {
    "manifest": ("workers/manifest", "workers/records.py", "schemas/locations.py"),
    READING: ("workers/storage", "workers/fetch", "workers/decode", "schemas/images.py"),
    "labelling": ("workers/label", "workers/process", "workers/batched.py"),
    "tables": (
        *("workers/tables", "workers/ledger/commit.py", "workers/ledger/publish.py", "workers/printable.py"),
        *("schemas/tables.py", "schemas/errors.py", "schemas/plan.py", "schemas/ranges.py"),
        *("schemas/exceptions.py", "schemas/models.py", "schemas/words.py"),
    ),
}
"""The files and folders of each part that all runs have. Texts of errors are rows, too."""

LIBRARIES = {READING: ("pillow", "simplejpeg")}
"""Libraries that a part's rows depend on; pillow-heif where it is installed. A model's are in its record."""

OF_MODELS = tuple(
    f"workers/models/{name}.py"
    for name in (
        "checkpoints",
        "folding",
        "model",
        "predictor",
        "preprocess",
        "runner",
        "runtime",
        "scores",
        "settings",
        "weights",
    )
)
"""What each model's rows depend on, beside the modules of its own."""

FACTORY = "workers/models/sources/factory.py"
"""Where models of the user's come from, which may be made of any other."""

MAKES_NO_ROWS = (
    *("workers/__init__.py", "workers/logs.py", "workers/machine.py"),
    *(f"workers/label/{name}.py" for name in ("profiler", "usage")),
    *(
        f"workers/ledger/{name}.py"
        for name in ("attempts", "damage", "directory", "heartbeat", "runs", "state")
    ),
    *(f"workers/models/{name}.py" for name in ("other_files", "registry", "source")),
    "workers/models/class_maps.py",  # what it finds is compared
    # these make fingerprints, which are compared
    *(f"workers/models/{name}.py" for name in ("digest", "objects", "own_code")),
    *(f"workers/process/{name}.py" for name in ("family", "limits", "output", "streams")),
    *(
        f"schemas/{name}.py"
        for name in ("exit_codes", "ledger", "metrics", "prediction", "submission", "tasks")
    ),
    # what they set is compared
    *("workers/class_map.py", "workers/places.py"),
    *(f"schemas/{name}.py" for name in ("identity", "section", "spec", "spec_file")),
)
"""Modules that no row depends on."""

Code = dict[str, dict[str, str]]
"""Of each part the digests of its files and the versions of its libraries, by name."""


def code_of(models: Mapping[str, ResolvedModel], root: Path = ROOT) -> Code:
    """The code that makes the rows of a run with some models, by part.

    Args:
        models: by name.
        root: the folder that `schemas` and `workers` are in.
    """
    parts = {part: _digests(root, _files(root, paths)) for part, paths in PARTS.items()}
    for part, names in LIBRARIES.items():
        parts[part] |= {name: version(name) for name in names}
    if heif := installed():
        parts[READING][PILLOW_HEIF] = heif
    return parts | {name: _digests(root, files_of(model, root)) for name, model in models.items()}


def files_of(model: ResolvedModel, root: Path = ROOT) -> list[str]:
    """The files, relative to the root, that a model's rows depend on."""
    own = [f"{module.replace('.', '/')}.py" for module in model.modules]
    return [*_files(root, ["workers/models"])] if FACTORY in own else [*OF_MODELS, *own]


def _files(root: Path, paths: Iterable[str]) -> Iterator[str]:
    """The Python files at and below some paths, without those that make no rows."""
    for path in paths:
        found = [root / path] if path.endswith(".py") else sorted((root / path).rglob("*.py"))
        names = (str(file.relative_to(root)) for file in found)
        yield from (name for name in names if name not in MAKES_NO_ROWS)


def _digests(root: Path, files: Iterable[str]) -> dict[str, str]:
    sources = ((name, (root / name).read_text(encoding="utf-8")) for name in files)
    return {name: hashlib.sha256(bare_code(text).encode()).hexdigest()[:16] for name, text in sources}


@functools.cache
def bare_code(source: str) -> str:
    """A module's source without comments, docstrings, blank lines and spaces at the end of lines.

    These are cut from the text, so that the rest is the same in every version of Python; and by one
    expression, as Python's own tokenizer takes half a second for all modules.
    """
    parts: list[str] = []
    code, end, depth = "", 0, 0
    for token in _TOKEN.finditer(source):
        code += source[end : token.start()]
        end = token.end()
        if token.lastgroup == "text" and (depth or not _is_alone(source, token)):
            parts += [_BLANKS.sub("\n", code), token[0]]
            code = ""
        elif token.lastgroup in _DEPTH:
            depth += _DEPTH[token.lastgroup]
            code += token[0]
    return "".join([*parts, _BLANKS.sub("\n", code + source[end:])]).strip()


_TEXTS = (
    *(r'"""(?:\\.|[^\\])*?"""', r"'''(?:\\.|[^\\])*?'''"),
    *(r'"(?:\\.|[^"\\\n])*"', r"'(?:\\.|[^'\\\n])*'"),
)
_TOKEN = re.compile(
    rf"(?P<text>[rR]?(?:{'|'.join(_TEXTS)}))|(?P<comment>#[^\n]*)|(?P<open>[(\[{{])|(?P<close>[)\]}}])",
    re.DOTALL,
)
_DEPTH = {"open": 1, "close": -1}
_BLANKS = re.compile(r"[ \t]*\n(?:[ \t]*\n)*")


def _is_alone(source: str, text: re.Match[str]) -> bool:
    """Whether nothing but a comment is in the lines of a text: outside of brackets it is a docstring."""
    before = source[source.rfind("\n", 0, text.start()) + 1 : text.start()]
    after = source[text.end() :].partition("\n")[0].lstrip()
    return not before.strip() and (not after or after.startswith("#"))
