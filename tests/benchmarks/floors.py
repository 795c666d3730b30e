"""Floors: what decoding alone and the models alone take on all cores, a process of one thread on each.

python -m tests.benchmarks.floors PHOTOS decode simplejpeg
python -m tests.benchmarks.floors PHOTOS models openvino
"""

import multiprocessing
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.decoders import DECODERS
from tests.benchmarks.runtimes import RUNTIMES, Answers
from tests.benchmarks.work import CORES, Image, Models, complete

BATCHES = {"compiled": 4, "openvino": 4, "openvino_bf16": 4}
"""The fastest of 1, 4 and 8 for each runtime; 1 where none is said."""

IN_MEMORY = 128
"""Decoded images that each process feeds to its models; a multiple of every batch."""

PASSES = 4
"""Over the files, in decoding: a second or two for a thousand photos."""

PATIENCE_S = 600
"""For the other processes to be ready."""

Task = tuple[Callable[[], None], int]
"""What a process does between the barriers, and how many images that is."""


def decoding(files: list[Path], name: str) -> Task:
    """Read and decode some files, and touch every pixel."""
    decode = DECODERS[name]()

    def work() -> None:
        for _ in range(PASSES):
            for file in files:
                decode(file.read_bytes()).max()

    decode(files[0].read_bytes())
    return work, PASSES * len(files)


def modelling(files: list[Path], name: str) -> Task:
    """Resize, both networks, suppression: all from pixels in memory."""
    decode, models = DECODERS["simplejpeg"](), models_by(name)
    images = [decode(files[i % len(files)].read_bytes()) for i in range(IN_MEMORY)]
    size = BATCHES.get(name, 1)
    batches: list[list[Image]] = [images[i : i + size] for i in range(0, IN_MEMORY, size)]

    def work() -> None:
        for batch in batches:
            models(batch)

    models(batches[0])
    return work, IN_MEMORY


def models_by(name: str) -> Models:
    """The models with their networks run by a runtime of one thread."""
    torch.set_num_threads(1)
    models, size = Models(), BATCHES.get(name, 1)
    classifier, detector = Answers(models.classifier), Answers(models.detector.network)
    classify = RUNTIMES[name](classifier.eval(), torch.zeros(size, 3, 224, 224))
    del models.classifier
    models.classifier = lambda batch: classify(batch)[0]
    del models.detector.network
    models.detector.network = RUNTIMES[name](detector.eval(), torch.zeros(size, 3, 416, 416))
    return models


FLOORS = {"decode": decoding, "models": modelling}


def work(make: Callable[[], Task], barrier: Barrier, answers: Any) -> None:
    """One process: makes ready, waits for the others, works. One that fails ends them all."""
    try:
        task, images = make()
    except BaseException:
        barrier.abort()
        raise
    barrier.wait(PATIENCE_S)
    began = time.time()
    task()
    answers.put((began, time.time(), images))


def main() -> None:
    """Prints the rate of all processes together."""
    photos, floor, name = sys.argv[1:]
    files = sorted(Path(photos).glob("*.jpg"))
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(CORES), context.Queue()
    processes = [
        context.Process(
            target=work, args=(partial(FLOORS[floor], files[core::CORES], name), barrier, answers)
        )
        for core in range(CORES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(1)
    began, ended, images = zip(*(answers.get() for _ in processes), strict=True)
    complete(images_per_s=sum(images) / (max(ended) - min(began)))


if __name__ == "__main__":
    main()
