"""What a contest's numbers come to: medians, ratios, a page of Markdown."""

import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

WHOLE, FEEDING, FLOOR = "whole job", "feeding alone", "floor"
RAYLABEL = "raylabel"
PAGE = Path(__file__).parent / "RESULTS.md"
OURS = ("ray", "torch", "torchvision", "onnxruntime", "pyarrow", "simplejpeg", "pillow", "obstore")
THEIRS = ("daft", "pyarrow", "openvino", "opencv-python-headless")

METHOD = """\
Every contestant is a command in a process of its own; they take turns, and each round begins with another
one. Medians of the rounds are shown, with the least and the most in brackets; where the machine is shared,
trust the ratios. Each runs twice in a round, on 64 photos and on all. **start-up** is the time of the
first, from the command to the last table: imports, Ray or another engine, processes, models, and 64 photos.
**in all** is the same of the second. **images/s** is the other photos by the difference: start-up is apart,
and what is read, batched or written when does not matter. **differ** is on how many photos the label, the
number or classes of the objects, a score (by 0.01) or a box (by a pixel) is not raylabel's. Ray runs its
workers at niceness 15 (RAY_worker_niceness): beside other load raylabel and Ray Data lose more than the
others do.

All run the same models (EfficientNet-Lite0, NanoDet-g) with the same preprocessing: peers by torch, raylabel
by ONNX Runtime, which it takes by itself; "raylabel, by torch" is the same pipeline with the peers' runtime.
Peers run as their documentation has it, and tuned as far as it says how: as many one-thread model processes
as cores, channels-last, the best batch size of 1, 4 and 8. Feeding alone has each photo twenty times and no
models: a function looks at every pixel once, in batches of 64. The floors run a process of one thread on each
core: decode reads and decodes the files and looks at every pixel; models resize, run both networks and
suppress boxes, from pixels in memory, in the best batch size of 1, 4 and 8. The floor
of the whole job is both after each other, by the fastest float32 runtime, and nothing else. `openvino_bf16`
is what OpenVINO does by itself on a processor that has bfloat16: it computes something else, and is shown
for comparison only. Daft's JPEG decoder gives other pixels than libjpeg-turbo (0.2 of 255 apart on average,
10 at most, on 60 photos), hence its other answers; the rest decode alike."""


@dataclass(frozen=True)
class Measured:
    """One run of one contestant; start-up and the whole in seconds, where it has them."""

    contest: str
    name: str
    round: int
    images_per_s: float
    start_up: float | None
    seconds: float | None


@dataclass(frozen=True)
class Found:
    """What was found on one photo; objects are (class_id, score, x1, y1, x2, y2)."""

    label_id: int
    score: float
    objects: list[tuple[float, ...]]


def differing(ours: Mapping[str, Found], theirs: Mapping[str, Found]) -> int:
    """On how many photos two contestants do not agree."""
    return sum(
        photo not in ours or photo not in theirs or not agree(ours[photo], theirs[photo])
        for photo in ours.keys() | theirs.keys()
    )


def agree(one: Found, other: Found, *, scores: float = 0.01, pixels: float = 1) -> bool:
    """Whether two answers are the same within tolerances."""
    if one.label_id != other.label_id or abs(one.score - other.score) > scores:
        return False
    if len(one.objects) != len(other.objects):
        return False
    left = list(other.objects)
    for each in one.objects:
        match = next((x for x in left if same_object(each, x, scores, pixels)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def same_object(one: tuple[float, ...], other: tuple[float, ...], scores: float, pixels: float) -> bool:
    """Whether two objects are one."""
    moved = max(abs(a - b) for a, b in zip(one[2:], other[2:], strict=True))
    return one[0] == other[0] and abs(one[1] - other[1]) <= scores and moved <= pixels


def medians(measured: Sequence[Measured]) -> dict[tuple[str, str], float]:
    """The median rate of each contestant of each contest, in the order they are first met."""
    rates: dict[tuple[str, str], list[float]] = {}
    for one in measured:
        rates.setdefault((one.contest, one.name), []).append(one.images_per_s)
    return {key: statistics.median(each) for key, each in rates.items()}


def best(rates: Mapping[tuple[str, str], float], kind: str) -> tuple[str, float] | None:
    """The fastest floor of a kind, and its rate; what computes something else does not count."""
    floors = {
        name: rate
        for (contest, name), rate in rates.items()
        if contest == FLOOR and name.startswith(f"{kind}: ") and not name.endswith("_bf16")
    }
    if not floors:
        return None
    name = max(floors, key=lambda each: floors[each])
    return name, floors[name]


def in_turn(*rates: float) -> float:
    """The rate of doing one thing after another."""
    return 1 / sum(1 / rate for rate in rates)


def goals(rates: Mapping[tuple[str, str], float]) -> list[tuple[str, float, float]]:
    """What was to be reached: what is compared, the ratio found, the ratio wanted."""
    wanted = [
        (WHOLE, "Daft, as documented", 2.0),
        (WHOLE, "Ray Data, as documented", 4.0),
        (WHOLE, "DataLoader, as documented", 3.0),
        (WHOLE, "Daft, tuned", 1.0),
        (WHOLE, "Ray Data, tuned", 1.0),
        (WHOLE, "DataLoader, tuned", 1.0),
        (FEEDING, "Daft, as documented", 1.2),
        (FEEDING, "Daft, tuned", 1.2),
    ]
    found = [
        (f"{contest}: {RAYLABEL} to {name}", rates[contest, RAYLABEL] / rates[contest, name], least)
        for contest, name, least in wanted
        if (contest, name) in rates and (contest, RAYLABEL) in rates
    ]
    decode, models = best(rates, "decode"), best(rates, "models")
    if decode and models and (WHOLE, RAYLABEL) in rates:
        floor = in_turn(decode[1], models[1])
        name = f"{WHOLE}: {RAYLABEL} to the floor ({decode[0]}, {models[0]}: {floor:.1f} images/s)"
        found.append((name, rates[WHOLE, RAYLABEL] / floor, 0.85))
    if decode and (FEEDING, RAYLABEL) in rates:
        found.append((f"{FEEDING}: {RAYLABEL} to {decode[0]}", rates[FEEDING, RAYLABEL] / decode[1], 0.75))
    for contest in (WHOLE, FEEDING):
        if (contest, f"{RAYLABEL}, from S3") in rates and (contest, RAYLABEL) in rates:
            ratio = rates[contest, f"{RAYLABEL}, from S3"] / rates[contest, RAYLABEL]
            found.append((f"{contest}: {RAYLABEL} from S3 to local files", ratio, 0.9))
    return found


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def rows_of(contest: str, measured: Sequence[Measured], differ: Mapping[str, int]) -> list[list[str]]:
    """The lines of one contest."""
    rates = medians(measured)
    reference = rates.get((contest, RAYLABEL))
    rows = []
    for (its, name), rate in rates.items():
        if its != contest:
            continue
        runs = [one for one in measured if (one.contest, one.name) == (contest, name)]
        row = [name, spread(rate, [one.images_per_s for one in runs])]
        if contest != FLOOR:
            row.append(f"{reference / rate:.2f}" if reference else "")
            row += [middle(one.start_up for one in runs), middle(one.seconds for one in runs)]
        if contest == WHOLE:
            row.append(str(differ.get(name, "")))
        rows.append(row)
    return rows


def spread(rate: float, rates: Sequence[float]) -> str:
    """A median with the range it was taken from."""
    return f"{rate:.1f} ({min(rates):.1f} to {max(rates):.1f})"


def middle(seconds: Iterable[float | None]) -> str:
    """The median of some seconds; nothing where there are none."""
    known = [each for each in seconds if each is not None]
    return f"{statistics.median(known):.1f}" if known else ""


COLUMNS = {
    WHOLE: ("contestant", "images/s", "times as slow as raylabel", "start-up, s", "in all, s", "differ"),
    FEEDING: ("contestant", "images/s", "times as slow as raylabel", "start-up, s", "in all, s"),
    FLOOR: ("alone, on all cores", "images/s"),
}


def page(measured: Sequence[Measured], differ: Mapping[str, int], setting: str) -> str:
    """The whole page of Markdown."""
    parts = ["# Speed, side by side", f"{setting}\n\nMade by `make bench`, which writes this page anew."]
    for contest, columns in COLUMNS.items():
        if rows := rows_of(contest, measured, differ):
            parts += [f"## {contest.capitalize()}", table(columns, rows)]
    reached = [
        [name, f"{ratio:.2f}", f"{least:g}", "yes" if ratio >= least else "no"]
        for name, ratio, least in goals(medians(measured))
    ]
    if reached:
        parts += ["## What it means", table(("ratio of medians", "found", "wanted", "reached"), reached)]
    return "\n\n".join([*parts, "## How it was measured", METHOD]) + "\n"


def setting(photos: Path, rounds: int, peers: str) -> str:
    """What was measured on: photos, machine, versions."""
    sizes = [file.stat().st_size for file in photos.glob("*.jpg")]
    kilobytes = statistics.mean(sizes) / 1000
    load = os.getloadavg()[2]
    return (
        f"{len(sizes):,} JPEG photos of {kilobytes:.0f} KB on average, {rounds} rounds. "
        f"{os.cpu_count()} cores ({processor()}), Python {platform.python_version()}; "
        f"load over the last 15 minutes {load:.1f}. "
        f"raylabel's: {', '.join(f'{name} {version(name)}' for name in OURS)}. "
        f"Peers': {versions_in(peers)}."
    )


def processor() -> str:
    """The processor's name, and which wide instructions it has that matter here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in facts.items()}
    flags = [
        flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in found.get("flags", "")
    ]
    return f"{found.get('model name', platform.machine())}, {' '.join(flags)}"


def versions_in(python: str) -> str:
    """The peers' versions in their environment."""
    code = (
        f"from importlib.metadata import version as v\nprint(', '.join(n + ' ' + v(n) for n in {THEIRS!r}))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write_results(measured: Sequence[Measured], differ: Mapping[str, int], photos: Path, peers: str) -> None:
    """Writes the page, and prints it."""
    rounds = 1 + max(one.round for one in measured)
    text = page(measured, differ, setting(photos, rounds, peers))
    PAGE.write_text(text)
    print(text)
