"""How an attempt begins: no run has rows of two manifests, and what is refused writes nothing.

Attempts begin in this process, as `jobs.run.pipeline` begins them, without Ray.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cluster import connect as cluster
from jobs.prepare.resolve import ResolvedJob
from jobs.run import pipeline
from schemas.exceptions import ManifestError, OutputConflictError
from schemas.ledger import MANIFEST, Retry
from schemas.spec_file import build_spec
from tests.jobs.run.plain_driver import Tracer
from tests.workers.tables.made_results import MODELS, results_of
from workers.ledger import attempts, heartbeat
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.heartbeat import Heartbeat
from workers.ledger.publish import publish_shard
from workers.ledger.state import finish_run
from workers.manifest.find import find_sources
from workers.manifest.held import held_manifest
from workers.manifest.manifest import Manifest
from workers.manifest.open import map_here, open_manifest
from workers.storage.store import Store


@dataclass(frozen=True)
class Place:
    """A manifest that is CSV, and a run directory."""

    manifest: Path
    store: Store

    def write(self, *uris: str, header: str = "uri") -> None:
        self.manifest.write_text("\n".join([header, *uris]))

    def job(self, **manifest: str) -> ResolvedJob:
        """The job as its manifest is now."""
        values = {"manifest": {"uri": str(self.manifest), **manifest}, "output": self.store.url}
        spec = build_spec(values, "a test")
        return ResolvedJob(spec, find_sources(spec.manifest), MODELS)

    def start(
        self, job: ResolvedJob | None = None, *, restart: bool = False
    ) -> tuple[RunDirectory, Manifest]:
        """Begins an attempt that ends before it labels."""
        with self.running(job, restart=restart) as begun:
            return begun

    @contextmanager
    def running(
        self, job: ResolvedJob | None = None, *, restart: bool = False
    ) -> Iterator[tuple[RunDirectory, Manifest]]:
        """Begins an attempt that runs for the length of a block."""
        job = job or self.job()
        run, attempt, manifest = pipeline.start(job, Tracer(print), restart=restart)
        with Heartbeat(run, attempt).running() as beating:
            manifest = manifest or pipeline.reopened(job, run, beating)
            yield replace(run, carried=manifest.carried), manifest

    def complete(self) -> RunDirectory:
        """A run of which every fourth image failed."""
        run, _ = self.start()
        commit_results(run, 1, results_of(run.plan, *range(run.plan.units)))
        for shard in range(run.plan.shards):
            publish_shard(run, shard)
        finish_run(run)
        return run

    def converted(self) -> dict[str, bytes]:
        return {key: self.store.read(key) for key in self.store.list(MANIFEST)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(cluster, "map_tasks", map_here)
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(attempts, "HEARTBEAT_TIMEOUT_S", 2.0)
    place = Place(tmp_path / "m.csv", Store(f"{tmp_path}/out"))
    place.write(*(f"s3://bucket/{n}.jpg" for n in range(8)))
    return place


def uris(manifest: Manifest) -> list[str]:
    return manifest.read(range(manifest.rows)).table["uri"].to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("restart", [False, True])
def test_what_another_start_makes_of_another_manifest_never_reaches_a_run(
    place: Place, restart: bool
) -> None:
    with place.running() as (_, manifest):
        sent = pickle.dumps(manifest)  # as an actor gets it, which opens its files when it labels
        before = place.converted()
        place.write(*(f"s3://other/{n}.jpg" for n in range(8)))
        with pytest.raises(OutputConflictError, match="is running here" if restart else "has changed since"):
            place.start(restart=restart)
        assert place.converted() == before
        # whoever looked when no run was there yet is refused after it has converted its own
        open_manifest(place.job().spec.manifest, place.job().sources, place.store, map_here)
        assert uris(pickle.loads(sent)) == [f"s3://bucket/{n}.jpg" for n in range(8)]


def test_a_run_that_goes_on_takes_no_file_that_a_refused_one_made(place: Place) -> None:
    _, first = place.start()
    rows = place.manifest.read_text()
    place.write(*(f"s3://other/{n}.jpg" for n in range(8)))
    open_manifest(place.job().spec.manifest, place.job().sources, place.store, map_here)
    place.manifest.write_text(rows)
    assert uris(place.start()[1]) == uris(first)


def test_two_that_begin_a_run_at_once_are_one_run(place: Place) -> None:
    job = place.job()
    late = job.record(open_manifest(job.spec.manifest, job.sources, place.store, map_here))
    run, manifest = place.start()
    assert run.record.id != late.id
    again, reopened = place.start()
    assert (again.record, reopened.files) == (run.record, manifest.files)


@pytest.mark.parametrize(
    ("manifest", "difference"),
    [
        ({"format": "text"}, "manifest[0].format: csv there, text now"),
        ({"uri_column": "url"}, "manifest.uri_column: uri there, url now"),
        ({"base": "/photos"}, "manifest.base: nothing there, /photos now"),
    ],
)
def test_a_manifest_that_is_read_another_way_is_another_one(
    place: Place, manifest: dict[str, str], difference: str
) -> None:
    place.start()
    with pytest.raises(OutputConflictError) as raised:
        place.start(place.job(**manifest))
    assert str(raised.value).splitlines()[1:-1] == [f"  {difference}"]


def test_a_folder_of_other_partitions_is_another_manifest(place: Place) -> None:
    inner = place.manifest.parent / "in" / "kind=a"
    inner.mkdir(parents=True)
    place.manifest.rename(inner / "m.csv")
    outer = replace(place, manifest=inner.parent)
    outer.start()
    with pytest.raises(OutputConflictError, match=r"manifest\[0\]\.partitions\.kind: a there, nothing now"):
        replace(place, manifest=inner / "m.csv").start()


def test_a_manifest_that_changed_behind_the_same_version_is_refused_by_its_rows_and_columns(
    place: Place,
) -> None:
    job = place.job()
    place.start(job)
    place.store.clear(MANIFEST)  # as the last attempt's disk was another
    place.write("a.jpg,x", "b.jpg,y", header="uri,label")
    with pytest.raises(OutputConflictError) as raised:
        place.start(job)
    assert str(raised.value).splitlines()[1:-1] == [
        "  manifest.columns.label: nothing there, string now",
        "  manifest.rows: 8 there, 2 now",
    ]
    assert place.converted() == {}


def test_a_retry_that_is_refused_leaves_nothing_of_the_manifest(place: Place) -> None:
    place.write(*(f"s3://bucket/{n}.jpg,x" for n in range(8)), header="uri,label")
    run = place.complete()
    run.create(Retry(number=1, codes=["TRUNCATED"], rows=[(3, 4), (7, 8)]))
    errors = Path(place.store.path("errors/shard-00000.parquet"))
    table = pq.read_table(errors)  # as if their URLs had a query
    hidden = table.set_column(table.column_names.index("uri_is_cut"), "uri_is_cut", pa.array([True] * 2))
    pq.write_table(hidden, errors)
    place.write(*(f"s3://other/{n}.jpg,x" for n in range(8)), header="uri,label")
    with pytest.raises(OutputConflictError, match="rows that failed are no longer where they were"):
        place.start(replace(place.job(), began_with=run.record.manifest))
    assert place.converted() == {}


def test_the_rows_that_a_retry_holds_stay_what_another_attempt_at_it_writes(place: Place) -> None:
    uris = ["s3://b/3", "s3://b/7"]
    keys = {"manifest_index": [3, 7], "image_id": ["3", "7"], "uri": uris, "uri_is_cut": [False] * 2}
    keys["manifest_uri"] = pa.nulls(2, pa.string())
    failed = pa.table({**keys, **{name: ["x", "x"] for name in ("stage", "code", "message")}})
    into = f"{place.store.url}/{MANIFEST}/001/held"
    first = held_manifest(failed, pa.schema([]), into)
    second = held_manifest(failed.slice(1), pa.schema([]), into)  # the first attempt has cured one by then
    assert first.read([3, 7]).locations == ["s3://b/3", "s3://b/7"]
    assert second.read([7]).locations == ["s3://b/7"]


def test_a_restart_of_a_complete_run_that_fails_leaves_nothing_of_the_manifest(place: Place) -> None:
    place.complete()
    good, bad = place.manifest, place.manifest.parent / "bad.csv"
    bad.write_text("uri,label\na.jpg,x\nb.jpg\n")
    spec = build_spec({"manifest": [str(good), str(bad)], "output": place.store.url}, "a test")
    job = ResolvedJob(spec, find_sources(spec.manifest), MODELS)
    with pytest.raises(ManifestError, match="line 3: found 1 values"):
        place.start(job, restart=True)
    assert place.converted() == {}
