"""Peer: a loop over a torch DataLoader.

As documented: https://docs.pytorch.org/tutorials/beginner/basics/data_tutorial.html (a Dataset of files,
batches of 64) with a worker a core. Tuned by
https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html: a process a core with one thread each,
channels-last, a worker of its own.
"""

import multiprocessing

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tests.benchmarks.work import CORES, Answer, Job, Models, asked, complete, tensor_of, write_tables


class Photos(Dataset[tuple[str, Tensor, Tensor]]):
    """Files as path, classifier's input and image; the transform is the model's own."""

    def __init__(self, files: list[str], models: Models) -> None:
        self._files = files
        self._prepare = models.prepare

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[str, Tensor, Tensor]:
        image = tensor_of(np.array(Image.open(self._files[index]).convert("RGB")))
        return self._files[index], self._prepare(image), image


Item = tuple[str, Tensor, Tensor]


def collate(items: list[Item]) -> tuple[list[str], Tensor, list[Tensor]]:
    """Images of a batch stay a list, since their sizes differ."""
    uris, inputs, images = zip(*items, strict=True)
    return list(uris), torch.stack(inputs), list(images)


def loop(job: Job, files: list[str], part: str, batch_size: int, workers: int) -> None:
    """Labels some files and writes their tables."""
    models = job.build()
    assert isinstance(models, Models)
    uris: list[str] = []
    answers: list[Answer] = []
    for batch, inputs, images in DataLoader(
        Photos(files, models), batch_size, num_workers=workers, collate_fn=collate
    ):
        uris += batch
        answers += models.label(inputs, images)
    write_tables(job.output, part, uris, answers)


def main() -> None:
    """One loop, or one a core."""
    job = asked()
    if not job.tuned:
        loop(job, job.files, "0", batch_size=64, workers=CORES)
    else:
        parts = [(job, job.files[core::CORES], str(core), job.batch_size, 1) for core in range(CORES)]
        processes = [multiprocessing.get_context("spawn").Process(target=loop, args=part) for part in parts]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
    complete()


if __name__ == "__main__":
    main()
