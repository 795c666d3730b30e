"""What tiles find, and what they cost: recall on mosaics of labelled photos, with and without.

    python -m tests.benchmarks.tiles [--mosaics 4] [--side 4]

Each mosaic has side x side photos of COCO, each in a square of 640 pixels, so that their objects are small in
it. A detector of 416 pixels sees such a mosaic of 2,560 pixels at a sixth of its size. "each photo" is what
the same detector finds in every photo by itself: what could be hoped for. The photos are probably from the
detector's training, so the numbers say what tiles add, not how well it does elsewhere.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from schemas.images import Detections
from schemas.tasks import DetectorSpec, TilesSpec
from tests.workers.models.alone import Alone
from tests.workers.models.mosaics import Mosaic, Score, mosaic, score, total
from workers.models import tiles
from workers.models.registry import load
from workers.models.tiled import TiledRunner

SETTINGS = [
    None,
    *(TilesSpec(size=size) for size in (2048, 1280, 1024, 640, 416)),
    *(TilesSpec(size=640, overlap=overlap) for overlap in (0.0, 0.4)),
]

WAYS = {
    "by score, IoU": (-1.0, 2.0),
    "whole boxes first, parts go": (tiles.CUT, tiles.COVERED),
    "the same, parts by half": (tiles.CUT, 0.5),
    "by score, all by IoS (as SAHI)": (2.0, 0.5),
}
"""How boxes of tiles can be merged: `CUT` and `COVERED` of `workers.models.tiles`."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    name: str
    parts: int
    cpu_s: float
    score: Score

    def __str__(self) -> str:
        found = self.score
        return (
            f"| {self.name} | {self.parts} | {self.cpu_s:.2f} | {found.recall:.2f} | {found.found} | "
            f"{found.doubles} | {found.wrong} |"
        )


def measured(name: str, detect: Alone, mosaics: Sequence[Mosaic]) -> Line:
    """What a detector finds of some mosaics, and the seconds for one."""
    began = time.process_time()
    found = [detect([known.image])[0] for known in mosaics]
    seconds = (time.process_time() - began) / len(mosaics)
    runner = detect.runner
    parts = len(runner._parts(mosaics[0].image)) if isinstance(runner, TiledRunner) else 1
    return Line(name, parts, seconds, total([score(*pair) for pair in zip(found, mosaics, strict=True)]))


def merged(mosaics: Sequence[Mosaic], spec: TilesSpec) -> list[str]:
    """What is left of the same boxes when they are merged in other ways."""
    runner = Alone(load(DetectorSpec(tiles=spec)), 1).runner
    assert isinstance(runner, TiledRunner)
    of_mosaics = []
    for known in mosaics:
        parts = runner._parts(known.image)
        found = [answer[0] for answer in super(TiledRunner, runner).__call__([p.image for p in parts])]  # type: ignore[index]
        of_mosaics.append((known, parts, found))
    lines = []
    for name, (tiles.CUT, tiles.COVERED) in WAYS.items():
        scores = [score(runner._detector.merged(parts, found), known) for known, parts, found in of_mosaics]
        one = total(scores)
        lines.append(f"| {name} | {one.recall:.3f} | {one.found} | {one.doubles} | {one.wrong} |")
    tiles.CUT, tiles.COVERED = WAYS["whole boxes first, parts go"]
    return lines


def merging_times() -> list[str]:
    """Seconds to merge many boxes."""
    random, lines = np.random.default_rng(0), []
    for n in (2_000, 20_000, 200_000):
        side = int(20_000 * (n / 200_000) ** 0.5)
        corners = random.uniform(0, side, (n, 2))
        boxes = np.concatenate([corners, corners + random.uniform(5, 60, (n, 2))], axis=1)
        found = Detections(boxes.astype(np.float32), random.random(n, np.float32), np.zeros(n, np.int32))
        many = tiles.Candidates(
            found.boxes, found.scores, found.class_ids, random.integers(0, 600, n), random.random(n) < 0.3
        )
        began = time.process_time()
        kept = tiles.suppress(many, 0.6, tiles.COVERED)
        lines.append(f"| {n:,} | {len(kept):,} | {time.process_time() - began:.2f} |")
    return lines


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mosaics", type=int, default=4)
    parser.add_argument("--side", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    photos = options.side**2
    mosaics = [mosaic(options.side, options.side, n * photos) for n in range(options.mosaics)]
    print(f"{len(mosaics)} mosaics of {photos} photos, {sum(len(m.boxes) for m in mosaics)} objects\n")
    print("| tiles | passes | CPU s | recall | found | doubles | wrong |\n|---|---|---|---|---|---|---|")
    for spec in SETTINGS:
        name = "none" if spec is None else f"{spec.size}, overlap {spec.overlap:g}"
        print(measured(name, Alone(load(DetectorSpec(tiles=spec)), 1), mosaics), flush=True)
    plain = Alone(load(DetectorSpec()), 1)
    each = [mosaic(1, 1, n) for n in range(photos * len(mosaics))]
    print(measured("each photo by itself", plain, each))
    print("\n| boxes of tiles of 640 merged | recall | found | doubles | wrong |\n|---|---|---|---|---|")
    print("\n".join(merged(mosaics, TilesSpec(size=640))))
    print("\n| boxes | kept | CPU s |\n|---|---|---|")
    print("\n".join(merging_times()))


if __name__ == "__main__":
    main()
