"""What an image costs, and in what memory, while there are more and more of them.

    python -m tests.benchmarks.growth [--images 1000 5000 20000 50000] [--models] [--decoders 2]

Each case is `raylabel run --json`, started as a user does, over hard links of the same thousand photos. The
model is none, so that what is measured is what raylabel itself costs; with --models it is both built-in ones;
with --decoders so many actors decode for another one, which is all that has models, and pixels cross Ray's
object store.
A run of 16 photos shows what starting takes. An image's cost is the CPU time of all processes in the second
half of a run, when all of them have started, by the images of that half.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.photos import BUILD, ROOT, make_photos, repeated
from tests.benchmarks.tree import Tree

FEW, PHOTOS = 16, 1000
NO_USAGE = ["--classifier", "tests.benchmarks.nothing:touch", "--detector", "none"]
FOUND = ["--classifier", "none", "--detector", "tests.benchmarks.nothing:find"]
STORE = ("num bytes currently spilled", "cumulative spill requests", "num local plasma objects")
"""What Ray says of its object store every ten seconds in debug_state.txt."""


@dataclass(frozen=True)
class Case:
    """What was seen of a run.

    Attributes:
        images: how many there were.
        seconds: from the command to its end.
        cpu_seconds: of all its processes, until its last progress.
        cost: CPU seconds an image, in the second half; None of a run that was too short to tell.
        peak: of the memory of all its processes, in bytes.
        driver: the most resident memory of the driver alone, in bytes.
        spilled: most bytes that Ray's object store had on disk, and how often it was told to spill.
        objects: most objects that were in the object store.
        load: of the machine in the last minute, this run's included.
    """

    images: int
    seconds: float
    cpu_seconds: float
    cost: float | None
    peak: int
    driver: int
    spilled: tuple[int, int]
    objects: int
    load: float

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", {1000 * self.cost:.2f} CPU ms an image"
        usage = f"{self.seconds:.1f} s, {self.cpu_seconds:.1f} CPU s{cost}"
        memory = f"{self.peak >> 20:,} MB in all, driver {self.driver >> 20:,} MB"
        spilled = f"spilled {self.spilled[0]} bytes in {self.spilled[1]} requests, {self.objects} objects"
        return f"{self.images:,} images: {usage}; {memory}; {spilled}; load {self.load:.1f}"


def main() -> None:
    """Prints one line a case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000, 20_000, 50_000])
    parser.add_argument("--models", action="store_true", help="both built-in models instead of none")
    parser.add_argument("--decoders", type=int, default=0, help="actors that decode for one with the model")
    asked = parser.parse_args()
    model = [] if asked.models else NO_USAGE
    if asked.decoders:
        os.environ["RAY_OVERRIDE_RESOURCES"] = '{"accelerator": 1}'
        fed = ("compute.resources={accelerator: 1}", f"compute.decoders={asked.decoders}")
        model = [*(model and FOUND), *(part for setting in fed for part in ("--set", setting))]
    few = measured(make_photos(FEW), FEW, model)
    print(few, flush=True)
    for images in asked.images:
        case = measured(repeated(make_photos(PHOTOS), images // PHOTOS), images, model)
        print(f"{case}; {case.seconds - few.seconds:.1f} s beyond starting", flush=True)


def measured(photos: Path, images: int, model: list[str]) -> Case:
    """Runs a job over a folder of photos."""
    output = BUILD / "out" / "growth"
    shutil.rmtree(output, ignore_errors=True)
    command = [str(Path(sys.executable).parent / "raylabel"), "run", "--json"]
    command += ["--manifest", str(photos), "--output", str(output), *model]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    logs, work, store = Path(), [], [(0,) * len(STORE)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process,
        Tree(process.pid).watched() as tree,
    ):
        for event in events(process):
            if event.get("done", 0) >= images / 2:
                work.append((event["done"], tree.cpu_seconds))
                store.append(store_of(logs))
            elif event["event"] == "started":
                logs = Path(event["ray_logs"])
    seconds = time.monotonic() - began
    rows = json.loads((output / "_SUCCESS").read_text())
    if (rows["labels"], rows["errors"]) != (images, 0):
        raise RuntimeError(f"of {images} images {rows['labels']} were labelled")
    (first, before), (last, after) = work[0], work[-1]
    spilled, requests, objects = (max(values) for values in zip(*store, strict=True))
    return Case(
        images=images,
        seconds=seconds,
        cpu_seconds=after,
        cost=(after - before) / (last - first) if last > first else None,
        peak=tree.peak,
        driver=tree.root_peak,
        spilled=(spilled, requests),
        objects=objects,
        load=os.getloadavg()[0],
    )


def events(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    """What a command that prints JSON Lines tells."""
    assert process.stdout
    return (json.loads(line) for line in process.stdout)


def store_of(logs: Path) -> tuple[int, ...]:
    """What Ray last said of its object store, see STORE; 0 what it has not said yet."""
    state = logs / "debug_state.txt"
    said = state.read_text() if state.is_file() else ""
    parts = [said.partition(f"{name}: ")[2].split(maxsplit=1) for name in STORE]
    return tuple(int(part[0]) if part else 0 for part in parts)


if __name__ == "__main__":
    main()
