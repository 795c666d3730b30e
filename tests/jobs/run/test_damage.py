"""Damage to the files of a run: each command names the file in a sentence, and no row is lost or doubled.

`plain_driver` runs the pipeline without models and Ray.
"""

import contextlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from jobs.results.images import Selection
from jobs.results.show import show_run
from jobs.results.status import find_status, show_status
from jobs.verify.reconcile import reconcile_run, verify_run
from schemas.exceptions import RaylabelError
from schemas.exit_codes import EXIT_CODES
from schemas.ledger import RUN, SUCCESS, Commit, ledger_folder
from schemas.ranges import from_ranges
from schemas.tables import TABLES
from tests.jobs.run.plain_driver import Death, Kind, finish
from tests.jobs.run.test_kill_points import Disk, Files, assert_complete, killed, pending, seen
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.ledger.state import PassState, read_success
from workers.storage.store import Store

State = Literal["complete", "retried", "labelling", "publishing", "retrying"]


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, and all that it said."""

    code: int
    words: str


@dataclass(frozen=True)
class Runs:
    """A run in every state, and the tables that an undisturbed one ends with, before and after a retry."""

    place: Disk
    states: dict[State, Store]
    first: Files
    second: Files

    def copy(self, state: State) -> Store:
        return self.place.new(self.states[state])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    place = Disk(tmp_path_factory.mktemp("runs"))
    complete = place.new()
    changes = place.changes(place.doing("run", complete, place.units))
    retried = place.new(complete)
    again = place.changes(place.doing("retry", retried, place.units))

    def dead(kind: Kind, changes: list[str], what: str, times: int) -> Store:
        """A run that died after the so-manieth change of a kind."""
        numbers = [number for number, change in enumerate(changes) if re.fullmatch(what, change)]
        store = place.new(complete if kind == "retry" else None)
        doing = place.doing(kind, store, place.units)
        killed(finish(replace(doing, death=Death(numbers[times], "after"))))
        return store

    labelling = dead("run", changes, "link _work/N/commits/N/shard-N/N.json", 5)
    publishing = dead("run", changes, "replace labels/shard-N.parquet", 1)
    retrying = dead("retry", again, "replace labels/shard-N.parquet", 1)
    states: dict[State, Store] = {
        "complete": complete,
        "retried": retried,
        "labelling": labelling,
        "publishing": publishing,
        "retrying": retrying,
    }
    return Runs(place, states, seen(complete), seen(retried))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def to_folder(path: Path) -> None:
    path.unlink()
    (path / "inner").mkdir(parents=True)


def drop_a_key(path: Path) -> None:
    """As a record of another version would be."""
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({"new": 1, **dict(list(record.items())[1:])}))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "a folder": to_folder,
    "another JSON": lambda path: path.write_text('{"\\u001b[31m": 1}'),
    "a list": lambda path: path.write_text("[1, 2]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a long number": lambda path: path.write_text("1" * 10_000),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "another version": drop_a_key,
}

FILES: dict[str, str] = {
    "run": RUN,
    "success": SUCCESS,
    "attempt": "_work/*/attempts/*.json",
    "heartbeat": "_work/*/heartbeats/*.json",
    "retry": "_work/*/retries/*.json",
    "commit": "_work/*/commits/*/*/*.json",
    "choice": "_work/*/publications/*/*.json",
    "shard": "_work/*/shards/*.json",
    "part": "_work/*/parts/*/*/*.parquet",
    "table": "*/shard-*.parquet",
}
TABULAR = ("part", "table")
HELD: dict[State, set[str]] = {
    "complete": {"run", "success", "attempt", "heartbeat", "shard", "table"},
    "retried": {"run", "success", "attempt", "heartbeat", "retry", "shard", "table"},
    "labelling": {"run", "attempt", "heartbeat", "commit", "part", "choice", "shard", "table"},
    "publishing": {"run", "attempt", "heartbeat", "commit", "part", "choice", "shard", "table"},
    "retrying": {"run", "attempt", "heartbeat", "retry", "commit", "part", "choice", "shard", "table"},
}
"""The kinds of files that a run has in each state."""

CASES = [
    (state, kind, damage)
    for state, kinds in HELD.items()
    for kind in FILES
    for damage in DAMAGE
    if kind in kinds and not (kind in TABULAR and damage == "another version")
]
SOME = CASES[::19]


def damaged(store: Store, kind: str, damage: str) -> str:
    """Damages the last file of a kind; returns its name."""
    path = sorted(Path(store.root).glob(FILES[kind]))[-1]
    DAMAGE[damage](path)
    return path.name


def told(command: Callable[[], object]) -> Outcome:
    """How a command ends that this process runs: any error but ours is a failure of the test."""
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out):
        try:
            command()
        except RaylabelError as error:
            code = EXIT_CODES[type(error)]
            out.write(str(error))
    return Outcome(code, out.getvalue())


def driven(runs: Runs, kind: Kind, store: Store) -> Outcome:
    """How `run` or `retry` ends."""
    done = finish(runs.place.doing(kind, store, runs.place.units))
    raised = [line for line in done.trace if line.startswith("raised ")]
    if not raised:
        assert done.exit_code == 0, done.trace
        return Outcome(0, done.words)
    name = raised[0].split()[1].rstrip(":")
    codes = {error.__name__: code for error, code in EXIT_CODES.items()}
    assert name in codes, done.trace
    return Outcome(codes[name], done.words)


def looks(store: Store) -> dict[str, Outcome]:
    """What the commands that write nothing say of a run."""
    return {
        "status": told(lambda: show_status(store.url, as_json=False)),
        "show": told(lambda: show_run(store.url, Selection(limit=3))),
        "reconcile": told(lambda: reconcile_run(store.url, as_json=False)),
    }


def assert_fit_to_print(name: str, *outcomes: Outcome) -> None:
    """What fails does so with a code of ours, and names the file; nothing of a file is printed raw."""
    for outcome in outcomes:
        assert "\x1b" not in outcome.words
        if outcome.code in (5, 8):
            assert name in outcome.words, outcome


@pytest.mark.parametrize(
    "cases", [pytest.param(SOME, id="some"), pytest.param(CASES, id="all", marks=pytest.mark.slow)]
)
def test_no_damage_ends_in_a_traceback_or_in_wrong_tables(
    runs: Runs, cases: list[tuple[State, str, str]]
) -> None:
    wrong = []
    for case in cases:
        try:
            assert_survives(runs, *case)
        except Exception as error:
            error.add_note(", ".join(case))
            wrong.append(error)
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} of {len(cases)} cases", wrong)


def assert_survives(runs: Runs, state: State, kind: str, damage: str) -> None:
    store = runs.copy(state)
    name = damaged(store, kind, damage)
    assert_fit_to_print(name, *looks(store).values())
    twin = runs.place.new(store)
    retried = driven(runs, "retry", twin)
    assert_fit_to_print(name, retried)
    done = driven(runs, "run", store)
    assert_fit_to_print(name, done)
    if done.code == 0 and state in ("labelling", "publishing"):
        assert_complete(store, runs.first)
        assert verify_run(store.url).issues == ()
    if done.code == 0 and state == "retrying":
        assert_complete(store, runs.second)
    for place in (store, twin):
        if read_success(place, lambda _: None) and kind != "table":
            assert seen(place) in (runs.first, runs.second)
        runs.place.forget(place)


def flip(path: Path) -> None:
    """Changes a byte in the middle, and no size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def find(store: Store, kind: str) -> list[Path]:
    return sorted(Path(store.root).glob(FILES[kind]))


def run_of(store: Store) -> RunDirectory:
    return find_run(store.url).newest()


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut", "flipped", "deleted"])
def test_a_damaged_part_costs_its_units_and_not_the_run(runs: Runs, damage: Callable[[Path], None]) -> None:
    store = runs.copy("labelling")
    commits = list(run_of(store).read(Commit))
    commit = commits[-1]
    part = commit.files["boxes"][0].key
    damage(Path(run_of(store).ledger.path(part)))
    units = PassState.read(run_of(store)).pending.tolist() if damage is flip else pending(store)
    assert units is not None
    done = finish(runs.place.doing("run", store, runs.place.units))
    lost = from_ranges(commit.units).tolist()
    assert sorted(done.units) == sorted({*units, *lost})
    assert f"{part} is damaged: " in done.words
    assert done.words.endswith("What it held is done again as the run goes on")
    assert_complete(store, runs.first)


def test_a_damaged_commit_costs_its_units_and_not_the_run(runs: Runs) -> None:
    store = runs.copy("labelling")
    ledger, *_ = find(store, "commit")
    (commit,) = [c for c in run_of(store).read(Commit) if c.key.endswith(ledger.name)]
    units = pending(store)
    cut(ledger)
    done = finish(runs.place.doing("run", store, runs.place.units))
    assert units is not None
    assert sorted(done.units) == sorted({*units, *from_ranges(commit.units).tolist()})
    assert f"{ledger} is damaged: it is no JSON (EOF while parsing" in done.words
    assert_complete(store, runs.first)


@pytest.mark.parametrize("kind", ["shard", "table"])
def test_a_shard_that_is_damaged_before_the_end_is_labelled_again(runs: Runs, kind: str) -> None:
    store = runs.copy("labelling")
    file = find(store, kind)[0]
    cut(file)
    assert find_status(store.url).progress.published == 0
    done = finish(runs.place.doing("run", store, runs.place.units))
    assert {0, 1, 2} <= set(done.units)
    assert f"{file} is damaged: " in done.words
    assert_complete(store, runs.first)
    assert verify_run(store.url).state == "complete"


LOSSES: dict[str, tuple[Callable[[Store], object], str]] = {
    "a shard's record": (lambda s: s.delete([_ledger(s, "shards/shard-00001.json")]), "shard-00001.json"),
    "a shard's record cut": (lambda s: cut(find(s, "shard")[2]), "shard-00002.json"),
    "the ledger": (lambda s: s.clear(_ledger(s, "")), "shards/shard-00000.json"),
    "a table": (lambda s: s.delete(["labels/shard-00002.parquet"]), "labels/shard-00002.parquet"),
    "a table cut": (lambda s: cut(find(s, "table")[0]), "boxes/shard-00000.parquet"),
    "the mark": (lambda s: s.write(SUCCESS, b'{"labels": 1}'), "_SUCCESS"),
}


def _ledger(store: Store, key: str) -> str:
    return f"{ledger_folder(find_run(store.url).record.id)}/{key}".rstrip("/")


@pytest.mark.parametrize("loss", LOSSES)
def test_a_retry_of_a_complete_run_that_lost_a_file_is_refused_and_changes_nothing(
    runs: Runs, loss: str
) -> None:
    store = runs.copy("complete")
    lose, name = LOSSES[loss]
    lose(store)
    before = {key: store.read(key) for key in store.list("")}
    outcome = driven(runs, "retry", store)
    assert outcome.code == 8
    assert f"{name} is damaged: " in outcome.words
    assert {key: store.read(key) for key in store.list("")} == before


def test_a_retry_does_not_build_on_a_table_that_somebody_changed(runs: Runs) -> None:
    store = runs.copy("complete")
    changed = find(store, "table")[0]
    flip(changed)
    outcome = driven(runs, "retry", store)
    assert outcome.code == 8
    assert f"{changed} is damaged: " in outcome.words
    assert read_success(store) is None


@pytest.mark.parametrize("state", ["retried", "retrying"])
def test_a_run_whose_retry_is_not_recorded_any_more_is_refused(runs: Runs, state: State) -> None:
    store = runs.copy(state)
    store.delete([_ledger(store, "retries/000001.json")])
    before = seen(store)
    kinds: tuple[Kind, ...] = ("run", "retry")
    for kind in kinds if state == "retrying" else kinds[1:]:  # to `run` the other is complete
        outcome = driven(runs, kind, store)
        assert outcome.code == 8
        assert "retries/000001.json is damaged: there is no such file" in outcome.words
    assert seen(store) == before


def test_a_mark_that_is_damaged_is_made_again(runs: Runs) -> None:
    store = runs.copy("complete")
    store.write(SUCCESS, b"{}")
    assert "_SUCCESS is damaged: it does not hold the rows of labels, boxes, errors" in (
        driven(runs, "retry", store).words
    )
    assert driven(runs, "run", store).code == 0
    assert_complete(store, runs.first)


def test_a_run_without_its_record_is_refused_where_tables_are_and_begun_anew_where_none_are(
    runs: Runs,
) -> None:
    store = runs.copy("labelling")
    store.delete([RUN])
    outcome = driven(runs, "run", store)
    assert outcome.code == 8
    assert f"{RUN} is damaged: there is no such file, though the tables and the ledger" in outcome.words
    assert driven(runs, "restart", store).code == 0
    assert_complete(store, runs.first)

    store = runs.copy("labelling")
    store.delete([RUN, *(f"{name}/shard-00000.parquet" for name in TABLES)])
    outcome = driven(runs, "run", store)
    assert f"{store.url}/{RUN} is gone: what its run " in outcome.words
    assert_complete(store, runs.first)


def test_a_run_that_lost_its_ledger_before_the_end_is_labelled_again(runs: Runs) -> None:
    store = runs.copy("labelling")
    ledger = f"{store.url}/{_ledger(store, '')}"
    store.clear(_ledger(store, ""))
    outcome = driven(runs, "run", store)
    assert outcome == Outcome(
        0,
        f"said note: {ledger} has no record of the 6 tables there, for example labels/shard-00000.parquet: "
        "their images are labelled again",
    )
    assert_complete(store, runs.first)


def test_a_stray_file_among_the_tables_is_named_and_not_shown(runs: Runs) -> None:
    store = runs.copy("complete")
    store.write("labels/mine\x1b.parquet", b"mine")
    store.delete([SUCCESS])
    note = f"note: {store.url}/labels/mine .parquet is no file of this run, but readers of the tables may"
    shown = told(lambda: show_run(store.url, Selection(limit=3)))
    assert (shown.code, note in shown.words) == (0, True)
    assert note.removeprefix("note: ") in driven(runs, "run", store).words
    (issue,) = verify_run(store.url).issues
    assert str(issue) == "labels/mine .parquet: found a file that no shard of this run has; expected none"


def test_the_status_names_what_is_damaged(runs: Runs) -> None:
    store = runs.copy("labelling")
    attempt, commit = find(store, "attempt")[0], find(store, "commit")[0]
    for path in (attempt, commit):
        path.write_bytes(b"")
    for path in find(store, "heartbeat"):  # the last one was long ago
        path.write_text(json.dumps({**json.loads(path.read_text()), "at": "2026-01-01T00:00:00Z"}))
    status = find_status(store.url)
    assert status.state == "unresponsive"
    assert [sentence.partition(": ")[0] for sentence in status.damage] == [
        f"{attempt} is damaged",
        f"{commit} is damaged",
    ]
    assert json.loads(status.to_json())["damage"] == list(status.damage)
    assert ("damage", status.damage[0]) in status.facts()
