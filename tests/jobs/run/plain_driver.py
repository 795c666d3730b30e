"""The real pipeline without Ray, in processes that cost little and that can be killed at a chosen moment.

Only where the work runs is another: `jobs.run.pipeline.label` calls, in its own process and one unit after
the other, the real `workers.ledger.commit.commit_results` on made results, and publishes a shard at once by
the real `workers.ledger.publish.publish_shard`.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import s3fs  # noqa: F401 - imported once, for all that are forked
from numpy.typing import NDArray
from rich.console import Console

from jobs.cluster import connect as cluster
from jobs.prepare.code import code_of
from jobs.prepare.resolve import ResolvedJob
from jobs.run import pipeline
from jobs.run.console import Reporter
from jobs.run.publisher import Publisher
from jobs.run.retry import begin_retry
from schemas.exceptions import ReconcileError
from schemas.ledger import Commit
from schemas.metrics import NO_USAGE, Usage
from schemas.spec_file import build_spec
from tests.workers.tables.made_results import MODELS, results_of, rows_of
from workers.ledger import attempts, heartbeat, state
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.ledger.state import read_success
from workers.manifest.find import find_sources
from workers.storage.store import Store

Kind = Literal["run", "restart", "retry"]
Moment = Literal["before", "half", "after"]

code_of(MODELS)  # what it reads of each module is kept, for all that are forked

CODES = ["TRUNCATED"]
MERGE_AT = 2
HEARTBEAT_TIMEOUT_S = 1.0
ROWS = 34


@dataclass(frozen=True)
class Death:
    """When a process dies: before, amid or after its n-th change of the disk, counted from 0."""

    number: int
    moment: Moment
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Doing:
    """What a process does.

    Attributes:
        kind: which command.
        output: the run directory.
        manifest: see `write_manifest`.
        units: of the job spec.
        trace: a file that it appends lines to: changes of the disk, units labelled, what was said.
        death: None: it goes on to its end.
        environment: variables that it sets first.
        heartbeat_s: seconds from one heartbeat to the next.
    """

    kind: Kind
    output: str
    manifest: list[str]
    units: dict[str, int]
    trace: Path
    death: Death | None = None
    environment: dict[str, str] = field(default_factory=dict)
    heartbeat_s: float = heartbeat.HEARTBEAT_S

    def job(self) -> ResolvedJob:
        """The job with made models, which nothing here loads."""
        values = {"manifest": self.manifest, "output": self.output, "units": self.units}
        spec = build_spec(values, "a test")
        return ResolvedJob(spec, find_sources(spec.manifest), MODELS)


@dataclass(frozen=True)
class Done:
    """How a process ended: its exit code (of a signal: negative), and the lines of its trace."""

    exit_code: int
    trace: list[str]

    @property
    def changes(self) -> list[str]:
        """Each change of the disk: verb and path, as far as it came."""
        return [line.removeprefix("change ") for line in self.trace if line.startswith("change ")]

    @property
    def units(self) -> list[int]:
        """The units that it labelled, each as often as it did."""
        return [int(line.removeprefix("unit ")) for line in self.trace if line.startswith("unit ")]

    @property
    def words(self) -> str:
        """What it said, and what it failed with."""
        return "\n".join(line for line in self.trace if line.startswith(("said ", "raised ")))


def write_manifest(folder: Path) -> list[str]:
    """A manifest of a Parquet file and of a CSV file that will be made into Parquet."""
    rows = rows_of(range(ROWS)).rename_columns({"manifest_label": "label"})
    first = folder / "first.parquet"
    pq.write_table(rows.select(["uri", "image_id", "split", "label"]).slice(0, ROWS - 6), first)
    second = folder / "second.csv"
    lines = [f"s3://bucket/{n}.jpg,id{n}" for n in range(ROWS - 6, ROWS)]
    second.write_text("\n".join(["uri,image_id", *lines]))
    return [str(first), str(second)]


def start(doing: Doing) -> multiprocessing.process.BaseProcess:
    """Starts a process, forked from one that has everything imported: some 10 ms."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "pytest"])
    process = context.Process(target=_do, args=(doing,))
    process.start()
    return process


def finish(doing: Doing) -> Done:
    """Starts a process and waits for its end."""
    process = start(doing)
    process.join(60)
    if process.exitcode is None:
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    return Done(code, doing.trace.read_text().splitlines())


def _do(doing: Doing) -> None:
    os.environ.update(doing.environment)
    file = os.open(doing.trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    trace = Tracer(lambda line: os.write(file, f"{line}\n".encode()))
    if not doing.environment:
        trace.watch_disk(doing.output, doing.death)
    engine(trace, doing.heartbeat_s)
    try:
        go(doing, trace)
    except Exception as error:
        trace.write(f"raised {type(error).__name__}: {str(error).splitlines()[0]}")
        trace.write(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def go(doing: Doing, trace: "Tracer") -> None:
    """What the commands do, without the models, Ray and the report."""
    job, store = doing.job(), Store(doing.output)
    if doing.kind == "retry":
        job.assert_same_run(store)
        if not begin_retry(doing.output, CODES):
            return
    elif doing.kind == "run":
        job.assert_same_run(store)
        if read_success(store, lambda error: trace.message(str(error))):
            return
    pipeline.label(job, trace, restart=doing.kind == "restart")


def engine(trace: "Tracer", heartbeat_s: float) -> None:
    """Exchanges where the work of `jobs.run.pipeline` runs: from now on in this process."""

    def committed(
        running: pipeline.RunningAttempt, pending: NDArray[np.int64]
    ) -> Generator[tuple[Commit, Usage], None, None]:
        for unit in pending.tolist():
            trace.write(f"unit {unit}")
            results = made(running.run, unit)
            for commit in commit_results(running.run, running.attempt.number, results):
                yield commit, NO_USAGE

    def map_tasks(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
        return [function(*each) for each in arguments]

    exchanged: list[tuple[Any, str, Any]] = [
        (pipeline, "committed", committed),
        (pipeline, "Publisher", AtOnce),
        (cluster, "map_tasks", map_tasks),
        (state, "MERGE_AT", MERGE_AT),
        (attempts, "HEARTBEAT_TIMEOUT_S", HEARTBEAT_TIMEOUT_S),
        (heartbeat, "HEARTBEAT_S", heartbeat_s),
    ]
    for module, name, value in exchanged:
        setattr(module, name, value)


def made(run: RunDirectory, unit: int) -> pa.Table:
    """The results of a unit: in a retry no image of every second one fails any more."""
    return results_of(run.current, unit, cured=run.retry > 0 and unit % 2 == 0)


class AtOnce(Publisher):
    """Publishes in this process, before anything else is done."""

    @staticmethod
    def start(run: RunDirectory, shard: int) -> ReconcileError | None:
        """Publishes a shard."""
        try:
            publish_shard(run, shard)
        except ReconcileError as error:
            return error
        return None

    @staticmethod
    def wait(task: ReconcileError | None) -> None:
        """Raises what the publishing raised."""
        if task:
            raise task


class Tracer(Reporter):
    """Writes down what happens in a process, and ends it at its moment of death."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__(Console(quiet=True))
        self.write = write

    def message(self, text: str) -> None:
        """What the job tells a person."""
        self.write(f"said {text}")

    def watch_disk(self, root: str, death: Death | None) -> None:
        """Counts the calls that change the disk; the heart's, which come by the clock, are none of them."""
        count = itertools.count()

        def watched(name: str, real: Callable[..., None], path_at: int) -> Callable[..., None]:
            def call(*args: Any, **options: Any) -> None:
                if threading.current_thread() is not threading.main_thread():
                    real(*args, **options)
                    return
                moment = death.moment if death and next(count) == death.number else None
                self.write(f"change {name} {_path(args[path_at]).removeprefix(f'{root}/')}")
                if moment == "before":
                    os.kill(os.getpid(), death.signal)
                if moment == "half":
                    os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
                    os.kill(os.getpid(), death.signal)
                try:
                    if name != "fsync":  # a power cut is not what is tested
                        real(*args, **options)
                finally:
                    if moment == "after":
                        os.kill(os.getpid(), death.signal)

            return call

        for name, path_at in (("fsync", 0), ("link", 1), ("replace", 1), ("unlink", 0), ("rmdir", 0)):
            setattr(os, name, watched(name, getattr(os, name), path_at))


def _path(place: Any) -> str:
    if isinstance(place, int):
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/self/fd/{place}")
    return str(place)
