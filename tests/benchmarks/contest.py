"""Everybody on the same photos, one after the other, several rounds: `make bench`.

    python -m tests.benchmarks.contest [--photos 1000] [--rounds 3] [--only WORD] [--add] [--peers PYTHON]
        [--before CLONE]

Every contestant is a command in a process of its own that prints JSON Lines, of which "complete" is the last.
Rounds that were measured earlier are kept with --add; they should be of the same code. With --before, the
raylabel of another clone, with its own .venv, takes part as "raylabel, before".
What was measured is kept in build/bench/measured.jsonl, and the table goes to tests/benchmarks/RESULTS.md.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from tests.benchmarks.photos import BUILD, ROOT, make_photos, repeated
from tests.benchmarks.results import (
    FEEDING,
    FLOOR,
    RAYLABEL,
    WHOLE,
    Found,
    Measured,
    differing,
    write_results,
)
from tests.s3 import running_server

MEASURED = BUILD / "measured.jsonl"
TIMEOUT_S = 3600
FEW = 64
"""Photos of the run that shows what starting costs."""

TIMES = 20
"""Each photo is fed so often where there are no models: else starting outweighs what is measured."""
DECODERS = ("raylabel", "simplejpeg", "torchvision", "opencv", "pillow")
RUNTIMES = ("eager", "channels_last", "compiled", "onnx", "openvino", "openvino_bf16")
PEERS = {"Daft": "daft_peer", "Ray Data": "ray_data", "DataLoader": "loader"}
PHOTOS, PHOTOS_NAME, OUTPUT = "{photos}", "{photos_name}", "{output}"
_MANIFEST_AND_OUTPUT = ["--manifest", PHOTOS, "--output", OUTPUT]
NO_MODELS = [
    *("--classifier", "tests.benchmarks.nothing:touch", "--detector", "none"),
    *("--set", "compute.batch_size=64"),
]


@dataclass(frozen=True)
class Contestant:
    """One line of the table.

    Attributes:
        contest: the work that it does.
        name: for the table.
        command: what is run; the folders of photos and of its tables take the places of PHOTOS and OUTPUT.
        environment: variables beside this process's own.
    """

    contest: str
    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def contestants(peers: str, before: Path | None = None) -> Iterator[Contestant]:
    """All of them, raylabel first.

    Args:
        peers: the Python that has the peers' packages.
        before: a clone whose raylabel takes part too.
    """
    ours = [str(Path(sys.executable).parent / "raylabel"), "run", "--json", *_MANIFEST_AND_OUTPUT]
    if before:
        environment = {"PYTHONPATH": str(before)}
        command = [str(before / ".venv" / "bin" / "raylabel"), "run", "--json", *_MANIFEST_AND_OUTPUT]
        yield Contestant(WHOLE, f"{RAYLABEL}, before", command, environment)
        yield Contestant(FEEDING, f"{RAYLABEL}, before", [*command, *NO_MODELS], environment)
    yield Contestant(WHOLE, RAYLABEL, ours)
    yield Contestant(WHOLE, f"{RAYLABEL}, by torch", [*ours, "--set", "compute.runtime=torch"])
    for name, module in PEERS.items():
        command = [peers, "-m", f"tests.benchmarks.{module}", PHOTOS, OUTPUT]
        yield Contestant(WHOLE, f"{name}, as documented", command)
        yield Contestant(WHOLE, f"{name}, tuned", [*command, "--tuned"])
    yield Contestant(FEEDING, RAYLABEL, [*ours, *NO_MODELS])
    daft = [peers, "-m", "tests.benchmarks.daft_peer", PHOTOS, OUTPUT, "--nothing"]
    yield Contestant(FEEDING, "Daft, as documented", daft)
    yield Contestant(FEEDING, "Daft, tuned", [*daft, "--tuned", "--batch-size=64"])
    for floor, names in (("decode", DECODERS), ("models", RUNTIMES)):
        for name in names:
            command = [peers, "-m", "tests.benchmarks.floors", PHOTOS, floor, name]
            yield Contestant(FLOOR, f"{floor}: {name}", command)


@contextlib.contextmanager
def from_s3(*folders: Path) -> Iterator[list[Contestant]]:
    """raylabel on the same photos from an S3 server on this machine, which is there for the block."""
    with running_server() as server:
        bucket = server.new_bucket()
        for photos in folders:
            server.files().put(f"{photos}/*.jpg", f"{bucket}/{photos.name}/")
        command = [str(Path(sys.executable).parent / "raylabel"), "run", "--json"]
        command += ["--manifest", f"s3://{bucket}/{PHOTOS_NAME}"]
        command += ["--output", OUTPUT]
        yield [
            Contestant(WHOLE, f"{RAYLABEL}, from S3", command, server.environment),
            Contestant(FEEDING, f"{RAYLABEL}, from S3", [*command, *NO_MODELS], server.environment),
        ]


def run(contestant: Contestant, photos: Path, output: Path) -> tuple[float, dict[str, float]]:
    """Seconds from a contestant's start until it had written its last table, and what it then told.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **contestant.environment}
    places = {PHOTOS: str(photos), PHOTOS_NAME: photos.name, OUTPUT: str(output)}
    command = [filled(word, places) for word in contestant.command]
    with (output / "stderr").open("w") as errors:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        assert process.stdout
        ended, told = None, {}
        for line in process.stdout:
            if '"event": "complete"' in line:
                ended, told = time.monotonic(), json.loads(line)
        process.wait(TIMEOUT_S)
    if ended is None:
        raise RuntimeError(f"{contestant.name} failed: {(output / 'stderr').read_text()[-2000:]}")
    return ended - began, told


def filled(word: str, places: dict[str, str]) -> str:
    """A word of a command with folders in their places."""
    for place, folder in places.items():
        word = word.replace(place, folder)
    return word


def measure(contestant: Contestant, few: Path, photos: Path, round_: int) -> Measured:
    """One run of a contestant on a few photos, which shows what starting costs, and one on all."""
    output, made = folder_of(contestant), (contestant.contest, contestant.name, round_)
    if contestant.contest == FLOOR:
        return Measured(*made, run(contestant, photos, output)[1]["images_per_s"], None, None)
    if contestant.contest == FEEDING:
        photos = repeated(photos, TIMES)
    short, _ = run(contestant, few, output)
    seconds, _ = run(contestant, photos, output)
    more = len(list(photos.glob("*.jpg"))) - FEW
    return Measured(*made, more / (seconds - short), short, seconds)


def found_by(output: Path) -> dict[str, Found]:
    """What a contestant found on each photo, by file name."""
    labels = pq.read_table(output / "labels", columns=["uri", "label_id", "score"]).to_pylist()
    boxes = pq.read_table(
        output / "boxes", columns=["uri", "class_id", "score", "x1", "y1", "x2", "y2"]
    ).to_pylist()
    found = {Path(row["uri"]).name: Found(row["label_id"], row["score"], []) for row in labels}
    for row in boxes:
        found[Path(row.pop("uri")).name].objects.append(tuple(row.values()))
    return found


def hold(
    everybody: list[Contestant], rounds: int, few: Path, photos: Path, earlier: list[Measured]
) -> list[Measured]:
    """The whole contest, added to what was measured earlier; each round begins with another contestant."""
    measured = list(earlier)
    first = 1 + max((one.round for one in earlier), default=-1)
    with MEASURED.open("w") as file:
        file.writelines(json.dumps(asdict(one)) + "\n" for one in earlier)
        for round_ in range(first, first + rounds):
            shift = (round_ - first) * len(everybody) // rounds
            for contestant in everybody[shift:] + everybody[:shift]:
                try:
                    one = measure(contestant, few, photos, round_)
                except RuntimeError as error:
                    print(error, file=sys.stderr, flush=True)
                    continue
                measured.append(one)
                print(json.dumps(asdict(one)), file=file, flush=True)
                print(f"{one.contest}, {one.name}: {one.images_per_s:.1f} images/s", flush=True)
    return measured


def is_one_of(contestant: Contestant, words: list[str]) -> bool:
    """Whether a contestant's contest and name hold one of some words."""
    return any(word in f"{contestant.contest}, {contestant.name}" for word in words)


def measured_earlier() -> list[Measured]:
    """The rounds of the last `make bench`."""
    return [Measured(**json.loads(line)) for line in MEASURED.read_text().splitlines()]


def folder_of(contestant: Contestant) -> Path:
    """Where a contestant's tables go."""
    name = "".join(x if x.isalnum() else "-" for x in f"{contestant.contest} {contestant.name}")
    return BUILD / "out" / name


def compared(everybody: list[Contestant]) -> dict[str, int]:
    """For each contestant with both models: images on which its last answers are not raylabel's."""
    folders = {each.name: folder_of(each) for each in everybody if each.contest == WHOLE}
    found = {name: found_by(folder) for name, folder in folders.items() if (folder / "boxes").is_dir()}
    return {name: differing(found[RAYLABEL], its) for name, its in found.items() if RAYLABEL in found}


def main() -> None:
    """Holds the contest and writes the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", default=[""], help="contestants whose contest and name hold one of these"
    )
    parser.add_argument("--add", action="store_true", help="to the rounds that were measured earlier")
    parser.add_argument("--peers", default=sys.executable, help="the Python that has the peers' packages")
    parser.add_argument("--before", type=Path, help="a clone of earlier code, with its .venv")
    options = parser.parse_args()
    few, photos = make_photos(FEW), make_photos(options.photos)
    with from_s3(few, photos, repeated(photos, TIMES)) as s3:
        everybody = [*contestants(options.peers, options.before), *s3]
        everybody = [each for each in everybody if is_one_of(each, options.only)]
        earlier = measured_earlier() if options.add else []
        measured = hold(everybody, options.rounds, few, photos, earlier)
    write_results(measured, compared(everybody), photos, options.peers)


if __name__ == "__main__":
    main()
