"""What an embedder costs beside a classifier with the same network, and the memory of publishing a shard.

    python -m tests.benchmarks.embedder [--photos 300] [--rounds 5]

One process labels and commits the same photos with and without the embedder, in turn, without Ray. Then a
shard of embeddings is published in a process of its own.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.prepare.check import ThisMachine
from jobs.prepare.resolve import resolve
from schemas.images import DecodedImage, LoadedImage
from schemas.plan import FURTHER_SHARD_ROWS, Pass
from schemas.spec_file import build_spec
from tests.benchmarks.photos import make_photos
from workers.label.labeller import Labeller
from workers.label.settings import UnitRequest
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.manifest.open import open_manifest
from workers.storage.store import Store
from workers.tables.results import LabelledImage, embedding_values, facts_of, results_table

MODEL = "efficientnet_lite0"


class Case:
    """A job over some photos, labelled in this process.

    Args:
        photos: the folder.
        output: the run directory.
        sections: of the job spec, beside manifest and output.
    """

    def __init__(self, photos: Path, output: str, **sections: object) -> None:
        job = resolve(build_spec({"manifest": str(photos), "output": output, **sections}, "the benchmark"))
        store = Store(output)
        manifest = open_manifest(job.spec.manifest, job.sources, store, lambda f, a: [f(*one) for one in a])
        record = job.record(manifest)
        self.run = RunDirectory.first(store, record, manifest.carried)
        settings = job.label_settings(manifest, self.run.current, manifest.rows, 1, ThisMachine(threads=1))
        self._label = Labeller(settings)

    def images_per_s(self, attempt: int) -> float:
        """Labels and commits every photo once."""
        began = time.perf_counter()
        for unit in range(self.run.plan.units):
            rows = self.run.current.rows_of_unit(unit)
            results, _ = self._label(UnitRequest(unit, rows), lambda _: None)
            commit_results(self.run, attempt, results)
        return self.run.plan.rows / (time.perf_counter() - began)


def main() -> None:
    """Prints both speeds and their ratio, then the memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    photos = make_photos(options.photos)
    with tempfile.TemporaryDirectory() as folder:
        alone = Case(photos, f"{folder}/alone", detector=None)
        both = Case(photos, f"{folder}/both", detector=None, embedder=MODEL)
        pairs = []
        for attempt in range(1, options.rounds + 2):  # the first round warms up
            pairs.append((alone.images_per_s(attempt), both.images_per_s(attempt)))
            print(f"{pairs[-1][0]:.1f} images/s alone, {pairs[-1][1]:.1f} with the embedder", flush=True)
        ratios = [with_it / without for without, with_it in pairs[1:]]
        print(f"ratio: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=publish, args=(photos, f"{folder}/shard"))
        process.start()
        process.join()


def publish(photos: Path, output: str) -> None:
    """Publishes a shard as large as "auto" makes it, of made embeddings; prints time and memory."""
    case = Case(photos, output, detector=None, classifier=None, embedder=MODEL, units={"rows": 128})
    plan = case.run.plan.model_copy(update={"rows": FURTHER_SHARD_ROWS})
    record = case.run.record.model_copy(update={"plan": plan})
    run = RunDirectory(case.run.store, record, Pass(plan))
    model, random = record.models["embedder"], np.random.default_rng(1)
    pixels = DecodedImage(np.zeros((1, 1, 3), np.uint8), "PNG", 1, "RGB", 1)
    facts, now = facts_of(LoadedImage(pixels, 1, bytes(32))), datetime.now(UTC)
    for unit in range(plan.units):
        rows = plan.rows_of_unit(unit)
        vectors = random.standard_normal((len(rows), model.width or 0), np.float32)
        outcomes = [LabelledImage(facts, embedding_values(vector, model), now) for vector in vectors]
        commit_results(run, 1, results_table(unit, keys_of(rows), outcomes, run.tables))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    publish_shard(run, 0)
    seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = sum(run.store.sizes("embeddings").values())
    print(
        f"a shard of {plan.rows:,} embeddings, {size / 1e6:.0f} MB: published in {seconds:.1f} s, "
        f"{(peak - before) / 1e3:.0f} MB more at the peak than before"
    )


def keys_of(rows: range) -> pa.Table:
    """What a manifest gives of some rows."""
    uris = [f"s3://photos/{row:010d}.jpg" for row in rows]
    return pa.table(
        {
            "manifest_index": pa.array(rows, pa.int64()),
            "image_id": pa.nulls(len(rows), pa.string()),
            "uri": uris,
            "manifest_uri": pa.nulls(len(rows), pa.string()),
            "uri_is_cut": [False] * len(rows),
        }
    )


if __name__ == "__main__":
    main()
