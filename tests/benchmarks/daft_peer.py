"""Peer: Daft, as its documentation teaches it.

As documented: https://docs.daft.ai/en/stable/custom-code/cls/ (download, decode_image, a batch method of a
class). Tuned by the same page: a process a core with one thread each, batches for the models.
"""

from typing import Any

import daft
from daft import DataType, Series, col

from tests.benchmarks.work import CORES, OBJECT, Job, asked, complete

ANSWER = DataType.struct(
    {
        "label_id": DataType.int32(),
        "label": DataType.string(),
        "score": DataType.float32(),
        "objects": DataType.list(DataType.from_arrow_type(OBJECT)),
        "processed_at": DataType.timestamp("us", "UTC"),
    }
)


def labeller(job: Job) -> Any:
    """The class that answers, set up as the job wants it."""
    setup: dict[str, Any] = {"max_concurrency": CORES, "use_process": True} if job.tuned else {}
    batches: dict[str, Any] = {"batch_size": job.batch_size if job.tuned else None}

    class Labeller:
        def __init__(self, its: Job) -> None:
            self._models = its.build()

        @daft.method.batch(return_dtype=ANSWER, **batches)
        def answer(self, images: Series) -> list[dict[str, Any]]:
            return self._models(images.to_pylist())

    return daft.cls(Labeller, **setup)(job)


def main() -> None:
    """The answers, which are small, are kept, and both tables written from them."""
    job = asked()
    photos = daft.from_glob_path(str(job.photos / "*.jpg")).select(col("path").alias("uri"))
    images = photos.with_column("image", col("uri").download().decode_image(mode="RGB"))
    found = images.select("uri", labeller(job).answer(col("image")).alias("answer")).collect()
    labels = found.select("uri", *(col("answer").get(name).alias(name) for name in LABEL_FIELDS))
    labels.write_parquet(str(job.output / "labels"))
    if not job.nothing:
        boxes = found.select("uri", col("answer").get("objects").alias("object")).explode("object")
        boxes = boxes.where(col("object").not_null())
        rows = boxes.select("uri", *(col("object").get(field.name).alias(field.name) for field in OBJECT))
        rows.write_parquet(str(job.output / "boxes"))
    complete()


LABEL_FIELDS = ("label_id", "label", "score", "processed_at")


if __name__ == "__main__":
    main()
