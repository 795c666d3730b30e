"""Peer: Ray Data, as its documentation teaches it.

As documented: https://docs.ray.io/en/latest/data/working-with-images.html (read_images, map, map_batches
with an actor class, batches of 4) and its object detection example; one actor, since two would leave no
CPU to read with on two cores. Tuned by https://docs.ray.io/en/latest/data/performance-tips.html: an actor
a core at half a CPU each, batches for the models, no step between reading and the models.
"""

from typing import Any

import numpy as np
import ray
import torch
from ray.data import ActorPoolStrategy, Dataset

from tests.benchmarks.work import (
    CORES,
    Job,
    Models,
    asked,
    box_rows,
    complete,
    label_row,
    tensor_of,
)

Row = dict[str, Any]


class Labeller:
    """The actor: a batch of images to their answers."""

    def __init__(self, job: Job) -> None:
        self._models = job.build()

    def __call__(self, batch: Row) -> Row:
        """Adds the answers, drops the pixels."""
        if "input" in batch and isinstance(self._models, Models):
            images = [tensor_of(image) for image in batch["image"]]
            answers = self._models.label(torch.from_numpy(np.stack(batch["input"])), images)
        else:
            answers = self._models(list(batch["image"]))
        return {"uri": batch["path"], "answer": np.array(answers, dtype=object)}


def prepared() -> Any:
    """The step before the actor: the classifier's own transform."""
    from schemas.tasks import ClassifierSpec
    from workers.models.registry import load

    transform = load(ClassifierSpec()).model.transform

    def prepare(row: Row) -> Row:
        return {**row, "input": transform(tensor_of(row["image"])).numpy()}

    return prepare


def pipeline(job: Job) -> Dataset:
    """From files to answers."""
    images = ray.data.read_images(str(job.photos), mode="RGB", include_paths=True)
    if job.tuned:
        return images.map_batches(
            Labeller,
            fn_constructor_args=[job],
            batch_size=job.batch_size,
            compute=ActorPoolStrategy(size=CORES),
            num_cpus=0.5,
        )
    if not job.nothing:
        images = images.map(prepared())
    return images.map_batches(
        Labeller, fn_constructor_args=[job], batch_size=4, compute=ActorPoolStrategy(size=1)
    )


def main() -> None:
    """The answers, which are small, are kept, and both tables written from them."""
    job = asked()
    ray.init(include_dashboard=False, log_to_driver=False)
    answers = pipeline(job).materialize()
    answers.map(lambda row: label_row(row["uri"], row["answer"])).write_parquet(str(job.output / "labels"))
    if not job.nothing:
        boxes = answers.flat_map(lambda row: box_rows(row["uri"], row["answer"]))
        boxes.write_parquet(str(job.output / "boxes"))
    complete()


if __name__ == "__main__":
    main()
