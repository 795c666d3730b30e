"""Records of a run read from its files: the one place that tells a whole record from a damaged one."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from schemas.exceptions import DamagedFileError
from schemas.ledger import (
    Attempt,
    Commit,
    HeartbeatRecord,
    Publication,
    Retry,
    RunRecord,
    Shard,
)
from schemas.prediction import SavedPrediction
from workers.printable import short_line
from workers.storage.store import Store
from workers.storage.uris import clean_uri

Parsed = TypeVar("Parsed", bound=BaseModel)

OR_RESTART = "Restore it from a copy, or start over with --restart, which deletes the tables"
GOES_ON = "The command that started the run resumes it"
PART, TABLE, MARK = "part", "table", "mark of completion"
"""What the files are called that hold no record."""

ADVICE: dict[type[BaseModel] | str, str] = {
    RunRecord: f"Without it the run can be neither resumed nor retried. {OR_RESTART}",
    Attempt: f"Which process the attempt is, is not known. {GOES_ON} once no heartbeat comes",
    HeartbeatRecord: f"How its attempt ended is not known. {GOES_ON} once no heartbeat comes",
    Retry: f"Without it nobody knows which rows the retry does. {OR_RESTART}",
    Commit: f"Its images are labelled again. {GOES_ON}",
    Publication: f"Its shard is published anew. {GOES_ON}",
    Shard: f"Without it the tables of its shard cannot be verified or changed. {OR_RESTART}",
    SavedPrediction: "The run is not compared with it; `raylabel plan` makes another",
    PART: f"Its images are labelled again. {GOES_ON}",
    TABLE: f"What it held is lost. {OR_RESTART}",
    MARK: "Whether the run is complete is not known. The command that started it adds up its tables again",
}
"""What damage to a file means, and what to do, where a command cannot go on without it."""

NAMES: dict[type[BaseModel] | str, str] = {
    RunRecord: "run",
    Attempt: "attempt",
    HeartbeatRecord: "heartbeat",
    Retry: "retry",
    Commit: "commit",
    Publication: "choice of commits",
    Shard: "shard record",
    SavedPrediction: "prediction",
}
"""What a record is called."""

MISSING = "there is no such file"


def damaged(kind: type[BaseModel] | str, store: Store, key: str, reason: str) -> DamagedFileError:
    """The error of a damaged file.

    Args:
        kind: the type of its record; of a file without one: what it is called.
        store: where it is.
        key: the file's in the store.
        reason: what is wrong with it.
    """
    file = short_line(f"{clean_uri(store.url)}/{key}", 1000)
    name = NAMES[kind] if kind in NAMES else str(kind)
    return DamagedFileError(name, file, reason, ADVICE[kind], key)


def parse(kind: type[Parsed], store: Store, key: str, data: bytes) -> Parsed:
    """The record that a file holds.

    Raises:
        DamagedFileError: it holds none of that kind.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise damaged(kind, store, key, _reason(kind, data, error)) from None


def _reason(kind: type[BaseModel], data: bytes, error: ValidationError) -> str:
    """Why a file holds no record of a kind, in words that are safe to print."""
    if not data.strip():
        return "it is empty"
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return f"it is no JSON ({short_line(first['msg'].removeprefix('Invalid JSON: '))})"
    where = short_line(".".join(str(step) for step in first["loc"]))
    wrong = f"{where}: {short_line(first['msg'])}" if where else short_line(first["msg"])
    return f"it is no {NAMES[kind]} of this version ({wrong}{_written_by(data)})"


def _written_by(data: bytes) -> str:
    """The version of raylabel that a file says it is of, where it says one."""
    record: Any = from_json(data)
    version = record.get("raylabel") if isinstance(record, dict) else None
    return f"; written by raylabel {short_line(version, 20)}" if isinstance(version, str) else ""
