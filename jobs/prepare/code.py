"""The code that makes a run's rows, by part of the run: what must be the same when the run is resumed.

Comments and docstrings do not count, nor do modules that no row depends on: a run resumes after they change.
One whose rows might come out otherwise is refused, with the part and the files.
"""

import functools
import hashlib
import io
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from schemas.models import ResolvedModel

ROOT = Path(__file__).parent.parent.parent

PARTS: dict[str, tuple[str, ...]] = {
    "manifest": ("workers/manifest", "schemas/locations.py"),
    "reading and decoding": ("workers/storage", "workers/fetch", "workers/decode", "schemas/images.py"),
    "labelling": ("workers/label", "workers/process", "workers/batched.py"),
    "tables": (
        *("workers/tables", "workers/ledger/commit.py", "workers/ledger/publish.py", "workers/printable.py"),
        *("schemas/tables.py", "schemas/errors.py", "schemas/plan.py", "schemas/ranges.py"),
        *("schemas/exceptions.py", "schemas/models.py", "schemas/words.py"),
    ),
}
"""The files and folders of each part that all runs have. Texts of errors are rows, too."""

LIBRARIES = {"reading and decoding": ("pillow", "simplejpeg")}
"""Libraries that a part's rows depend on. A model's are in its record."""

OF_MODELS = tuple(
    f"workers/models/{name}.py" for name in ("model", "predictor", "runtime", "settings", "weights")
)
"""What each model's rows depend on, beside the modules of its own."""

FACTORY = "workers/models/sources/factory.py"
"""Where models of the user's come from, which may be made of any other."""

MAKES_NO_ROWS = (
    *("workers/__init__.py", "workers/logs.py"),
    *(f"workers/label/{name}.py" for name in ("profiler", "usage")),
    *(
        f"workers/ledger/{name}.py"
        for name in ("attempts", "damage", "directory", "heartbeat", "runs", "state")
    ),
    *(f"workers/models/{name}.py" for name in ("registry", "source")),
    # these make fingerprints, which are compared
    *(f"workers/models/{name}.py" for name in ("digest", "objects", "own_code")),
    *(f"workers/process/{name}.py" for name in ("family", "limits", "output", "streams")),
    *(
        f"schemas/{name}.py"
        for name in ("exit_codes", "ledger", "metrics", "prediction", "submission", "tasks")
    ),
    # what they set is compared
    *(f"schemas/{name}.py" for name in ("identity", "spec", "spec_file")),
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


@functools.cache  # it takes half a second for all modules
def bare_code(source: str) -> str:
    """A module's source without comments, docstrings, blank lines and spaces at the end of lines.

    These are cut from the text, so that the rest is the same in every version of Python.
    """
    lines = source.split("\n")
    within_text: set[int] = set()
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    code = [token for token in tokens if token.type not in (tokenize.NL, tokenize.COMMENT)]
    docstrings = {
        token.start
        for before, token, after in zip([None, *code], code, code[1:], strict=False)
        if token.type == tokenize.STRING and (before is None or before.type in _STATEMENT_BEGINS)
        if after.type == tokenize.NEWLINE
    }
    for token in reversed(tokens):
        (row, column), (last, end) = token.start, token.end
        if token.type == tokenize.COMMENT or token.start in docstrings:
            rest = lines[last - 1][end:]
            lines[row - 1 : last] = [lines[row - 1][:column], *[""] * (last - row)]
            lines[last - 1] += rest
        elif last > row:
            within_text |= {*range(row, last)}
    return "\n".join(
        line if row in within_text else line.rstrip()
        for row, line in enumerate(lines, start=1)
        if row in within_text or line.strip()
    )


_STATEMENT_BEGINS = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
