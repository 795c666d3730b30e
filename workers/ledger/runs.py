"""The run directory: which run it holds, and whether that is the one that is asked for."""

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from schemas.exceptions import OutputConflictError, StorageError
from schemas.ledger import (
    COMMITS,
    MANIFEST,
    PARTS,
    PUBLICATIONS,
    RETRIES,
    RUN,
    SHARDS,
    SUCCESS,
    TEMPORARY,
    WORK,
    Retry,
    RunRecord,
    ledger_folder,
)
from schemas.plan import Pass, Plan
from schemas.ranges import from_ranges
from schemas.tables import TABLES
from workers.ledger.attempts import assert_over, last_attempt
from workers.ledger.commit import RunFolder
from workers.storage.store import Store
from workers.storage.uris import clean_uri

MAX_DIFFERENCES = 20
"""Lines of difference shown where a run is refused."""


def new_run_id() -> str:
    """A name that no other run has, and that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def read_run(store: Store) -> RunRecord | None:
    """The run that a directory holds; None where it holds none.

    Raises:
        OutputConflictError: there are tables in it that no run of raylabel's wrote.
    """
    try:
        return RunRecord.model_validate_json(store.read(RUN))
    except FileNotFoundError:
        strangers = [key for table in TABLES for key in store.list(table)]
        if strangers:
            raise OutputConflictError(
                f"{clean_uri(store.url)} has {len(strangers)} files that no run here wrote, {strangers[0]} "
                "among them. Choose another output"
            ) from None
        return None


def find_run(output: str) -> tuple[Store, RunRecord]:
    """The run of a directory that must hold one.

    Raises:
        StorageError: it holds none.
    """
    store = Store(output)
    if record := read_run(store):
        return store, record
    raise StorageError(f"found no run at {clean_uri(output)}; `raylabel run` makes one")


def ledger_of(store: Store, record: RunRecord) -> Store:
    """The folder of a run's ledger and staged parts."""
    return store.below(ledger_folder(record.id))


def begin_run(store: Store, record: RunRecord) -> RunRecord:
    """Makes the run's record, or finds the one that an earlier attempt made of the same job.

    Raises:
        OutputConflictError: the directory holds another run; the difference is in the message.
    """
    found = read_run(store)
    if found is None and store.create(RUN, record.to_json()):
        return record
    found = found or RunRecord.model_validate_json(store.read(RUN))
    assert_same_run(store, found.identity(), record.identity())
    return found


def assert_same_run(store: Store, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuses to go on with a run that would mix its rows with others.

    Raises:
        OutputConflictError: naming every value that differs.
    """
    lines = sorted(
        f"  {key}: {_short(old)} there, {_short(new)} now" for key, old, new in _differences(there, here)
    )
    if lines:
        more = [f"  and {len(lines) - MAX_DIFFERENCES} more"] if len(lines) > MAX_DIFFERENCES else []
        raise OutputConflictError(
            f"{clean_uri(store.url)} holds a run whose rows would differ from this job's:\n"
            + "\n".join(lines[:MAX_DIFFERENCES] + more)
            + "\nChoose another output, or begin this one anew with --restart, which deletes its tables"
        )


def replace_run(store: Store, record: RunRecord, message: Callable[[str], None]) -> RunRecord:
    """Puts a new run in the place of the one that the directory holds, whose tables are deleted later.

    Raises:
        OutputConflictError: an attempt at the old run is running, or the tables there are no run's.
    """
    old = read_run(store)
    if old and (attempt := last_attempt(ledger_of(store, old))):
        assert_over(ledger_of(store, old), attempt, message)
    store.delete([SUCCESS])
    store.write(RUN, record.to_json())
    return record


def remove_previous_runs(store: Store, record: RunRecord) -> None:
    """Deletes what a run that was restarted left in the directory.

    First what it could still be published from, then its tables, its ledger last: while that is there the
    clearing is not done, and the next attempt goes on with it. But once this run has begun to publish, the
    tables are its own, and a ledger that is there was made again by a worker that outlived its driver.

    Raises:
        OutputConflictError: this run was restarted itself; nothing was deleted.
    """
    # a folder without files is no ledger: some object stores go on naming folders that were emptied
    others = [folder for folder in store.folders(WORK) if folder not in _kept(record) and store.list(folder)]
    if not others:
        return
    _assert_here(store, record)
    for folder in others:
        for kind in (COMMITS, PUBLICATIONS, PARTS):
            store.clear(f"{folder}/{kind}")
    ledger = ledger_of(store, record)
    if not ledger.list(PUBLICATIONS) and not ledger.list(SHARDS):
        for name in TABLES:
            store.clear(name)
    for folder in others:
        store.clear(folder)


def _assert_here(store: Store, record: RunRecord) -> None:
    """Refuses to clear a directory that another run was begun in while this attempt slept."""
    now = read_run(store)
    if now is None or now.id != record.id:
        raise OutputConflictError(
            f"another run was begun in {clean_uri(store.url)} with --restart; this attempt stops"
        )


def _kept(record: RunRecord) -> set[str]:
    return {ledger_folder(record.id), MANIFEST, TEMPORARY}


def read_retries(ledger: Store) -> list[Retry]:
    """Every retry of a run, by number."""
    found = ledger.read_all(ledger.list(RETRIES))
    return [Retry.model_validate_json(data) for data in found if data is not None]


def last_retry(ledger: Store) -> Retry | None:
    """The newest retry of a run; None where there is none."""
    keys = ledger.list(RETRIES)
    return Retry.model_validate_json(ledger.read(keys[-1])) if keys else None


def work_of(plan: Plan, retry: Retry | None) -> Pass:
    """The rows that a pass does."""
    return Pass(plan, from_ranges(retry.rows) if retry else None)


def folder_of(store: Store, record: RunRecord, carried: pa.Schema) -> RunFolder:
    """Where the newest pass of a run makes its tables."""
    ledger = ledger_of(store, record)
    retry = last_retry(ledger)
    return RunFolder(store, ledger, retry.number if retry else 0, work_of(record.plan, retry), carried)


def _differences(there: Any, here: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The deepest values at which two nested values part, with their dotted paths."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in there.keys() | here.keys():
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for number, pair in enumerate(zip(there, here, strict=True)):
            yield from _differences(*pair, f"{path}[{number}]")
    elif there != here:
        yield path, there, here


def _short(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case {"info": {"name": str(name)}}:  # a whole model
            return name
        case list():
            return f"{len(value)} of them"
        case _:
            text = str(value)
            return text if len(text) <= 60 else f"{text[:57]}..."
