"""A signal, or the death of Ray, in any phase: one sentence, its exit code, and nothing left running."""

import os
import signal
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import psutil
import pytest

from tests.integration.jobs_here import raylabel, rows, tables
from tests.integration.killing import Attempt
from tests.integration.nodes import running_nodes

pytestmark = pytest.mark.slow

RESUMES = "; committed work stays, and the same command resumes"
CODES = {signal.SIGINT: (130, "Ctrl-C"), signal.SIGTERM: (143, "SIGTERM"), signal.SIGHUP: (129, "SIGHUP")}

Phase = Callable[[Attempt, float, list[str]], object]
"""Whether an attempt is in it: called with the attempt, the seconds since its start, its new files."""


def has_begun(attempt: Attempt, *_: object) -> bool:
    """Python has begun: the first thing that the command does is to handle signals."""
    status = Path(f"/proc/{attempt.process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught & 1 << (signal.SIGTERM - 1))


def after(seconds: float) -> Phase:
    """So many seconds after the start."""
    return lambda _, passed, __: passed >= seconds


def has(name: str) -> Phase:
    """A process that comes from the command has a text in its command line."""
    return lambda attempt, *_: any(name in line for line in attempt.family())


def has_file(pattern: str) -> Phase:
    """There is a new file in the run directory."""
    return lambda _, __, files: any(fnmatch(name, pattern) for name in files)


PHASES: dict[str, Phase] = {
    "Python has begun": has_begun,
    "torch is imported": has("workers.process.forkserver"),
    "after 0.5 s": after(0.5),
    "after 1 s": after(1),
    "after 2 s": after(2),
    "after 3 s": after(3),
    "Ray's GCS starts": has("gcs_server"),
    "Ray's raylet starts": has("raylet"),
    "Ray's agents start": has("ray::DashboardAgent"),
    "the attempt is begun": has_file("_work/*/attempts/*"),
    "actors start": has("ray::MapWorker"),
    "a unit is committed": has_file("_work/*/commits/*.json"),
    "a shard is published": has_file("labels/*.parquet"),
}


@pytest.fixture
def job(photos: Path, tmp_path: Path) -> list[str]:
    """The options of a job of 12 units and three shards, which takes some seconds to label."""
    manifest = tmp_path / "m.txt"
    names = [*sorted(str(path) for path in photos.glob("*.[pj]*g"))[:6] * 4, str(tmp_path / "late.jpg")]
    manifest.write_text("\n".join(names))
    settings = ["units.rows=2", "units.shard_rows=8", "fetch.rate=8", "compute.actors=1"]
    pairs = [part for setting in settings for part in ("--set", setting)]
    return ["--manifest", str(manifest), "--detector", "none", *pairs]


def of(output: Path) -> dict[str, list[dict[str, object]]]:
    return {name: rows(table) for name, table in tables(output).items()}


def files_of(output: Path) -> set[str]:
    return {str(path.relative_to(output)) for path in output.rglob("*")}


def disturbed(
    command: list[str], output: Path, phase: Phase, disturb: Callable[[Attempt], None], **environment: str
) -> tuple[int, str]:
    """Runs a command and disturbs it in a phase; its exit code and complaint."""
    before, start = files_of(output), time.monotonic()
    with Attempt(*command, **environment) as attempt:
        attempt.wait_until(
            lambda: phase(attempt, time.monotonic() - start, sorted(files_of(output) - before))
        )
        disturb(attempt)
        code, _, complaint = attempt.end()
        return code, complaint


def sends(number: signal.Signals, *, to_all: bool) -> Callable[[Attempt], None]:
    """Sends a signal to a command, or as a terminal does to all of its process group."""
    return lambda attempt: (os.killpg if to_all else os.kill)(attempt.process.pid, number)


KINDS = [(number, to_all) for number in CODES for to_all in (False, True)]


def assert_stops_in(
    phases: dict[str, Phase], command: list[str], output: Path, ends: list[str], left: Callable[[], list[str]]
) -> None:
    """A signal, another one each time, ends a command in each phase as it should."""
    for place, (name, phase) in enumerate(phases.items()):
        number, to_all = KINDS[place % len(KINDS)]
        code, complaint = disturbed(command, output, phase, sends(number, to_all=to_all))
        expected, called = CODES[number]
        assert complaint in [f"raylabel: stopped by {called}{end}\n" for end in ends], name
        assert code == expected, name
        assert left() == [], name
        assert not list(Path(os.environ["TMPDIR"]).glob("raylabel-*")), name


def test_a_signal_in_any_phase_ends_a_run_or_retry_with_a_sentence_and_nothing_is_left(
    job: list[str], photos: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    output, late = tmp_path / "out", tmp_path / "late.jpg"
    ends = [RESUMES, "", " while starting; the same command begins again"]
    assert_stops_in(PHASES, ["run", *job, "--output", str(output)], output, ends, left)
    assert raylabel("run", str(output)).returncode == 0
    assert left() == []

    late.write_bytes((photos / "rocket.jpg").read_bytes())
    phases = {name: PHASES[name] for name in ("Ray's raylet starts", "actors start")}
    retry = ["retry", str(output), "--code", "all"]
    assert_stops_in(phases, retry, output, [RESUMES], left)
    assert raylabel(*retry).returncode == 0

    assert raylabel("run", *job, "--output", str(tmp_path / "undisturbed")).returncode == 0
    assert left() == []
    assert of(output) == of(tmp_path / "undisturbed")


def test_a_signal_ends_check_and_plan_too(
    job: list[str], tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    phases = {
        name: PHASES[name] for name in ("Python has begun", "torch is imported", "after 2 s", "after 3 s")
    }
    for command in ("check", "plan"):
        output = tmp_path / command
        ends = ["", " while starting; the same command begins again"]
        assert_stops_in(phases, [command, *job, "--output", str(output)], output, ends, left)
        assert not output.exists()


def kills(name: str) -> Callable[[Attempt], None]:
    """Kills a process of Ray."""

    def kill(attempt: Attempt) -> None:
        time.sleep(0.3)  # it may have just begun
        for process in attempt.processes():
            if process.name() == name:
                process.kill()

    return kill


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_the_death_of_ray_in_any_phase_stops_a_run_and_the_same_command_goes_on(
    name: str, job: list[str], tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    output = tmp_path / "out"
    run = ["run", *job, "--output", str(output)]
    for phase in (has(name), PHASES["Ray's agents start"], PHASES["a unit is committed"]):
        code, complaint = disturbed(run, output, phase, kills(name))
        assert complaint == f"raylabel: stopped, as Ray's process {name} has died{RESUMES}\n"
        assert code == 12
        assert left() == []
    assert raylabel("run", *job, "--output", str(tmp_path / "undisturbed")).returncode == 0
    assert raylabel(*run).returncode == 0
    assert of(output) == of(tmp_path / "undisturbed")


def test_a_cluster_whose_gcs_is_silent_stops_a_run_with_a_sentence(
    job: list[str], tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    output = tmp_path / "out"
    with running_nodes(0, head_cpus=2) as nodes:
        gcs = next(
            child for child in psutil.Process(nodes.head.pid).children() if child.name() == "gcs_server"
        )
        run = ["run", *job, "--output", str(output), "--address", nodes.address]
        phase, patience = PHASES["a unit is committed"], {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}
        code, complaint = disturbed(run, output, phase, lambda _: gcs.suspend(), **patience)
    assert complaint.startswith("raylabel: stopped, as Ray's GCS at ")
    assert complaint.endswith(f" s{RESUMES}\n")
    assert code == 12
    assert left() == []
