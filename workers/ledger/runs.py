"""The run directory: which run it holds, and whether that is the one that is asked for."""

import re
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from schemas.exceptions import DamagedFileError, OutputConflictError, RaylabelError, StorageError
from schemas.identity import MAY_COME
from schemas.ledger import (
    COMMITS,
    MANIFEST,
    PARTS,
    PUBLICATIONS,
    RUN,
    SUCCESS,
    TEMPORARY,
    WORK,
    Attempt,
    Publication,
    RunRecord,
    Shard,
    ledger_folder,
    manifest_folder,
)
from schemas.tables import TABLES
from schemas.words import counted
from workers.ledger.attempts import assert_not_running
from workers.ledger.damage import MISSING, damaged, parse
from workers.ledger.directory import RunDirectory
from workers.ledger.state import read_success
from workers.printable import short_line
from workers.storage.store import Store
from workers.storage.uris import clean_uri

_FILE = re.compile(r"manifest\[(\d+)\]\.(uri|size|version)")

MAX_SHOWN = 60
"""Characters of a value that are shown of a difference."""

MAX_DIFFERENCES = 20
"""Lines of difference shown where a run is refused."""


def new_run_id() -> str:
    """A name that no other run has, and that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def read_run(store: Store) -> RunRecord | None:
    """The run that a directory holds; None where it holds none.

    Raises:
        OutputConflictError: there are tables in it that no run of raylabel's wrote.
        DamagedFileError: run.json holds no run, or is gone while the run's tables are there.
    """
    try:
        return parse(RunRecord, store, RUN, store.read(RUN))
    except FileNotFoundError:
        _assert_no_tables(store)
        return None


def _assert_no_tables(store: Store) -> None:
    """Refuses a directory without run.json that has tables: they are a run's where its ledger is there."""
    unexpected = [key for table in TABLES for key in store.list(table)]
    if unexpected and _ledgers(store):
        raise damaged(
            RunRecord, store, RUN, f"{MISSING}, though the tables and the ledger of its run are there"
        )
    if unexpected:
        raise OutputConflictError(
            f"{clean_uri(store.url)} has {len(unexpected)} files that no run here wrote, for "
            f"example {short_line(unexpected[0])}. Choose another output"
        )


def _ledgers(store: Store) -> list[str]:
    """The ids of the runs that have a ledger here: those with an attempt."""
    folders = [folder for folder in store.folders(WORK) if folder not in (MANIFEST, TEMPORARY)]
    return [folder.removeprefix(f"{WORK}/") for folder in folders if store.list(f"{folder}/{Attempt.folder}")]


def find_run(output: str) -> RunDirectory:
    """The run of a directory that must hold one, in its first pass; see `RunDirectory.newest`.

    Raises:
        StorageError: it holds none.
        DamagedFileError: see `read_run`.
    """
    store = Store(output)
    if record := read_run(store):
        return RunDirectory.first(store, record)
    raise StorageError(f"found no run at {clean_uri(output)}; `raylabel run` makes one")


def begin_run(store: Store, record: RunRecord, message: Callable[[str], None] = lambda _: None) -> RunRecord:
    """Makes the run's record, or finds the one that an earlier attempt made of the same job.

    Args:
        store: the run directory.
        record: of a new run.
        message: called with a sentence for a person, where a run's record is gone.

    Raises:
        OutputConflictError: the directory holds another run; the difference is in the message. Or an attempt
            at a run whose record is gone is running.
        DamagedFileError: see `read_run`.
    """
    existing = read_run(store)
    if existing is None:
        for ledger in _ledgers(store):
            message(f"{clean_uri(store.url)}/{RUN} is gone: what its run {ledger} did is done again")
            _assert_none_runs(store, ledger, record, message)
        if store.create(RUN, record.to_json()):
            return record
        existing = read_run(store)
    if existing is None:
        raise damaged(RunRecord, store, RUN, "it is no file")
    assert_same_run(store, existing.identity(), record.identity())
    return existing


def _assert_none_runs(store: Store, ledger: str, record: RunRecord, message: Callable[[str], None]) -> None:
    """Refuses to start while an attempt at another run of the directory is running, by its ledger alone."""
    assert_not_running(RunDirectory.first(store, record.model_copy(update={"id": ledger})), message)


def assert_same_run(store: Store, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuses to resume a run that would mix its rows with others.

    A run whose first pass is complete may go on with a decoder that it began without: only the images that
    failed for the lack of it come out otherwise, and those only by a retry, which replaces their rows.

    Raises:
        OutputConflictError: naming every value that differs.
    """
    differences = [
        f"  {_in_words(*difference, there)}" for difference in _differences(_values(there), _values(here))
    ]
    gained = MAY_COME if _is_past_its_first_pass(store) else frozenset()
    differences += [f"  {line}" for line in _code_in_words(there, here, gained)]
    lines = sorted(short_line(line, 300) for line in dict.fromkeys(differences))
    if lines:
        more = [f"  and {len(lines) - MAX_DIFFERENCES} more"] if len(lines) > MAX_DIFFERENCES else []
        raise OutputConflictError(
            f"{clean_uri(store.url)} holds a run whose rows would differ from this job's:\n"
            + "\n".join(lines[:MAX_DIFFERENCES] + more)
            + "\nChoose another output, or start over with --restart, which deletes its tables"
        )


def assert_same_rows(run: RunDirectory, rows: int, columns: dict[str, str]) -> None:
    """Refuses to resume a run with a manifest that has become another one, though its files are the same.

    That is one whose store says neither when a file was changed nor what is in it, or one that was changed
    while it was read.

    Args:
        run: that was begun.
        rows: of the manifest, as it is now.
        columns: carried into the labels table now, name to Arrow type.

    Raises:
        OutputConflictError: naming every value that differs.
    """
    there = {"rows": run.record.plan.rows, "columns": run.record.manifest_columns}
    assert_same_run(run.store, {"manifest": there}, {"manifest": {"rows": rows, "columns": columns}})


def assert_replaceable(store: Store, message: Callable[[str], None]) -> None:
    """Refuses to replace a run while an attempt at it is running, before anything is made for the new one.

    Raises:
        OutputConflictError: naming the attempt.
    """
    with suppress(DamagedFileError):  # `replace_run` looks for its attempts
        if old := read_run(store):
            assert_not_running(RunDirectory.first(store, old), message)


def replace_run(store: Store, record: RunRecord, message: Callable[[str], None]) -> RunRecord:
    """Puts a new run in the place of the one that the directory holds, whose tables are deleted later.

    Of a run whose record is damaged or gone every ledger is looked into for an attempt that is running.

    Raises:
        OutputConflictError: an attempt at the old run is running, or the tables there are no run's.
    """
    looked_into: set[str] = set()
    while ledgers := _ledgers_of_run(store) - looked_into:  # another restart may put its run there meanwhile
        for ledger in sorted(ledgers):
            _assert_none_runs(store, ledger, record, message)
        looked_into |= ledgers
    store.delete([SUCCESS])
    store.write(RUN, record.to_json())
    return record


def _ledgers_of_run(store: Store) -> set[str]:
    """The id of the run that a directory holds; without a whole record, of all that may be it."""
    with suppress(DamagedFileError):
        if record := read_run(store):
            return {record.id}
    return {*_ledgers(store)}


def remove_previous_runs(run: RunDirectory) -> None:
    """Deletes what runs that were restarted left in the directory.

    First what they could still be published from, then their tables, their ledgers last: while a ledger is
    there the removal is not done, and the next attempt resumes it. But once this run has begun to publish,
    the tables are its own, and a ledger that is there was made again by a worker that outlived its driver.

    Raises:
        OutputConflictError: this run was restarted itself; nothing was deleted.
    """
    store, own = run.store, {ledger_folder(run.record.id), MANIFEST, TEMPORARY}
    # a folder without files is no ledger: some object stores go on naming folders that were emptied
    previous = [folder for folder in store.folders(WORK) if folder not in own and store.list(folder)]
    # what a retry of such a run made of its manifest: this run has none yet
    later = [folder for folder in store.folders(MANIFEST) if folder > manifest_folder(run.retry)]
    if not previous and not later:
        return
    _assert_current(run)
    for folder in later:
        store.clear(folder)
    for folder in previous:
        for kind in (COMMITS, PUBLICATIONS, PARTS):
            store.clear(f"{folder}/{kind}")
    if not run.list(Publication) and not run.list(Shard):
        for name in TABLES:
            store.clear(name)
    for folder in previous:
        store.clear(folder)


def _assert_current(run: RunDirectory) -> None:
    """Refuses to clear a directory that another run was started in while this attempt slept."""
    now = read_run(run.store)
    if now is None or now.id != run.record.id:
        raise OutputConflictError(
            f"another run was started in {clean_uri(run.store.url)} with --restart; this attempt stops"
        )


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


def _in_words(key: str, old: Any, new: Any, there: dict[str, Any]) -> str:
    """A difference for a person: what it is, and what can be done, where that is not another output."""
    if match := _FILE.fullmatch(key):
        uri = there["manifest"][int(match[1])]["uri"]
        if match[2] == "uri":
            return f"{key}: {_short(old)} there, {_short(new)} now (a copy counts only in its old place)"
        return f"manifest: what is in {uri} has changed since the run began; put it back to resume"
    return f"{key}: {_short(old)} there, {_short(new)} now"


def _values(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity without its code."""
    return {key: value for key, value in identity.items() if key != "code"}


def _is_past_its_first_pass(store: Store) -> bool:
    """Whether a directory holds a run that is complete, or is being retried."""
    try:
        return read_success(store, lambda _: None) is not None or find_run(store.url).newest().retry > 0
    except RaylabelError:  # what is damaged is told elsewhere
        return False


def _code_in_words(there: dict[str, Any], here: dict[str, Any], gained: Collection[str]) -> Iterator[str]:
    """Each part of the code that differs between two identities, for a person, and what can be done.

    Args:
        there: the run's identity.
        here: the job's.
        gained: libraries that may be there now though they were not.
    """
    codes = there.get("code", {}), here.get("code", {})
    for part in codes[0].keys() | codes[1].keys():
        is_model = part in there or part in here
        if is_model and None in (there.get(part), here.get(part)):
            continue  # one job lacks the model, which is a difference of its own
        old, new = (code.get(part, {}) for code in codes)
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        changed = [name for name in changed if name in old or name not in gained]
        files = [name for name in changed if name.endswith(".py")]
        for name in (name for name in changed if name not in files):
            if name in MAY_COME and name not in old:
                yield (
                    f"{part}: {name} {new[name]} now, none there; uninstall it to resume, then retry what "
                    "failed for the lack of it"
                )
                continue
            versions = f"{old.get(name, 'not recorded')} there, {new.get(name, 'not recorded')} now"
            yield f"{part}: {name} {versions}; install what was there to resume"
        if files:
            more = f" and {counted(len(files) - 1, 'more file')}" if len(files) > 1 else ""
            yield (
                f"{part}: {files[0]}{more} of raylabel changed since the run began, and may make other rows; "
                "the version that began it (see `raylabel` in run.json) resumes it"
            )


def _short(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case {"info": {"name": str(name)}}:  # a whole model
            return name
        case []:
            return "none"
        case list():
            texts = ", ".join(map(str, value))
            return texts if len(texts) <= MAX_SHOWN else f"{len(value)} of them"
        case _:
            text = str(value)
            return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
