"""How long a job of a hundred million rows takes to begin, and to go on, and in what memory of the driver.

    python -m tests.benchmarks.large_manifest

The manifest (ten Parquet files, made once) names a few photos over and over; the model is none. Each attempt
is `raylabel run --json`, started as a user does, timed to its first new commit and left at work for a while.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.photos import BUILD, ROOT, make_photos

ROWS = 100_000_000
FILES = 10
ROW_GROUP_ROWS = 65_536
PHOTOS = 16
AT_WORK_S = 30
"""How long each attempt is left at work after its first commit: its memory may grow."""


@dataclass(frozen=True)
class Attempt:
    """What was seen of an attempt.

    Attributes:
        seconds: from the command to its first new commit.
        first: the driver's most resident memory until then, in bytes.
        peak: the same until it was stopped.
        done: images that were labelled or had failed by then.
    """

    seconds: float
    first: int
    peak: int
    done: int


def main() -> None:
    """Prints a line for each of two attempts."""
    manifest, output = make_manifest(), BUILD / "out" / "large-manifest"
    shutil.rmtree(output, ignore_errors=True)
    before = 0
    for name in ("from its beginning", "gone on with"):
        found = attempt(manifest, output, before)
        load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
        print(
            f"{name}: {found.seconds:.1f} s to the first commit; driver {found.first >> 20} MB then, "
            f"{found.peak >> 20} MB at most; {found.done - before:,} images in all; load {load}",
            flush=True,
        )
        before = found.done


def make_manifest() -> Path:
    """The folder of the manifest's files; made once."""
    folder = BUILD / f"manifest-{ROWS}"
    if folder.exists():
        return folder
    photos = pa.array(sorted(str(file) for file in make_photos(PHOTOS).glob("*.jpg")))
    unfinished = folder.with_suffix(".unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    indices = pa.array(np.arange(ROWS // FILES, dtype=np.int32) % len(photos))
    table = pa.table({"uri": pa.DictionaryArray.from_arrays(indices, photos)})
    for number in range(FILES):
        pq.write_table(table, unfinished / f"part-{number}.parquet", row_group_size=ROW_GROUP_ROWS)
    return unfinished.rename(folder)


def attempt(manifest: Path, output: Path, before: int) -> Attempt:
    """Runs the job until some time after its first commit.

    Args:
        manifest: its folder.
        output: the run directory.
        before: images that earlier attempts did.
    """
    command = [str(Path(sys.executable).parent / "raylabel"), "run", "--manifest", str(manifest)]
    command += ["--output", str(output), "--json", "--detector", "none"]
    command += ["--classifier", "tests.benchmarks.nothing:touch"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        done = (event["done"] for event in events(process) if event["event"] == "progress")
        new = next((count for count in done if count > before), None)
        if new is None:
            raise RuntimeError("the run ended without a commit")
        seconds, first = time.monotonic() - began, peak_of(process.pid)
        for new in done:  # noqa: B007
            if time.monotonic() - began > seconds + AT_WORK_S:
                break
        peak = peak_of(process.pid)
        process.send_signal(signal.SIGTERM)
        *_, last = [new, *done]
    return Attempt(seconds, first, peak, last)


def events(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    """What a command that prints JSON Lines tells."""
    assert process.stdout
    return (json.loads(line) for line in process.stdout)


def peak_of(pid: int) -> int:
    """The most resident memory that a process has had, in bytes."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
