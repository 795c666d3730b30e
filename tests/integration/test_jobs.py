"""Whole jobs on a real Ray: what goes in, and what is in the tables afterwards."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.search.build import make_index
from jobs.search.searcher import Searcher
from jobs.verify.reconcile import verify_run
from schemas.exceptions import (
    FailureBudgetError,
    ManifestError,
    OutputConflictError,
    SpecError,
    StorageError,
)
from tests.integration.jobs_here import rows, run_here, tables
from tests.s3 import S3Server
from workers.tables.results import key_of

pytestmark = pytest.mark.usefixtures("ray_here")

FURTHER: dict[str, Any] = {
    "classifier": {"score_threshold": 0.3},
    "embedder": "efficientnet_lite0",
    "taggers": {"scene": {"model": "efficientnet_lite0", "top_k": 2}},
}
"""Models beside the usual ones, of the classifier's network: they cost next to nothing."""


@pytest.fixture(scope="module")
def folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good photos and one bad file of each kind, with a manifest that names them all."""
    folder = tmp_path_factory.mktemp("in") / "photos"
    shutil.copytree(photos, folder)
    (folder / "half.jpg").write_bytes((photos / "china.jpg").read_bytes()[:60_000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<html><body>Not found</body></html>")
    names = ["china.jpg", "half.jpg", "gone.jpg", "empty.jpg", "chelsea.png", None, "page.jpg", "coffee.png"]
    listed = [
        {"uri": name, "image_id": f"id-{n}", "split": "train" if n % 2 else "test", "label": n}
        for n, name in enumerate(names)
    ]
    pq.write_table(pa.Table.from_pylist(listed), folder / "m.parquet")
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    return folder


@pytest.fixture(scope="module")
def labelled(ray_here: None, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """The run directory of a job over that manifest with all kinds of model, in one unit."""
    output = tmp_path_factory.mktemp("out") / "run"
    sums = run_here(manifest=str(folder / "m.parquet"), output=str(output), units={"rows": 8}, **FURTHER)
    assert sums == {name: table.num_rows for name, table in tables(output).items()}
    return output


FAILED = [
    (1, "id-1", "half.jpg", "decode", "TRUNCATED"),
    (2, "id-2", "gone.jpg", "fetch", "NOT_FOUND"),
    (3, "id-3", "empty.jpg", "fetch", "EMPTY"),
    (5, "id-5", None, "list", "NOT_FOUND"),
    (6, "id-6", "page.jpg", "decode", "NOT_AN_IMAGE"),
]


def test_one_bad_image_costs_one_errors_row_and_the_sums_agree(labelled: Path) -> None:
    found = tables(labelled)
    assert json.loads((labelled / "_SUCCESS").read_text()) == {
        "labels": 3,
        "boxes": found["boxes"].num_rows,
        "tags": found["tags"].num_rows,
        "embeddings": 3,
        "errors": 5,
    }
    columns = ["manifest_index", "image_id", "manifest_uri", "stage", "code"]
    assert [tuple(row.values()) for row in found["errors"].select(columns).to_pylist()] == FAILED
    expected = ["manifest_index", "image_id", "manifest_uri", "split", "manifest_label", "label"]
    assert [tuple(row.values()) for row in found["labels"].select(expected).to_pylist()] == [
        (0, "id-0", "china.jpg", "test", 0, "palace"),
        (4, "id-4", "chelsea.png", "test", 4, "tiger cat"),
        (7, "id-7", "coffee.png", "train", 7, "espresso"),
    ]


def test_the_classifiers_network_gives_tags_and_embeddings_as_well(labelled: Path) -> None:
    found = tables(labelled)
    best = [row["topk"] for row in found["labels"].to_pylist()]
    tags = [(row["manifest_index"], row["tagger"], row["label"]) for row in found["tags"].to_pylist()]
    assert [tag for tag in tags if tag[1] == "scene"] == [
        (row, "scene", top["label"]) for row, topk in zip((0, 4, 7), best, strict=True) for top in topk[:2]
    ]
    own = [
        (row, "classifier", top["label"])
        for row, topk in zip((0, 4, 7), best, strict=True)
        for top in topk
        if top["score"] > 0.3
    ]
    assert [tag for tag in tags if tag[1] == "classifier"] == own
    assert len(own) >= 2
    vectors = np.stack(found["embeddings"]["embedding"].to_pylist())
    assert vectors.shape == (3, 1280)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_every_row_has_the_absolute_uri_its_key_and_the_run(folder: Path, labelled: Path) -> None:
    run_id = json.loads((labelled / "run.json").read_text())["id"]
    for table in tables(labelled).values():
        for row in table.to_pylist():
            name = f"{folder}/{row['manifest_uri']}" if row.get("manifest_uri") else row["uri"]
            assert (row["uri"], row["run_id"]) == (name, run_id)
            assert row["uri"] == "" or row["uri"].startswith(f"{folder}/")
            assert row["key"] == key_of(row["uri"])


def test_units_and_shards_do_not_change_the_rows(folder: Path, labelled: Path, tmp_path: Path) -> None:
    units = {"rows": 2, "shard_rows": 4}
    run_here(manifest=str(folder / "m.parquet"), output=str(tmp_path / "out"), units=units, **FURTHER)
    assert sorted(path.name for path in (tmp_path / "out" / "labels").iterdir()) == [
        "shard-00000.parquet",
        "shard-00001.parquet",
    ]
    one, many = tables(labelled), tables(tmp_path / "out")
    # batches of another size may differ in the last bits of a float
    floats = ("score", "topk", "x1", "y1", "x2", "y2", "embedding")
    for name in ("labels", "boxes", "tags", "embeddings", "errors"):
        but = [column for column in floats if column in one[name].column_names]
        assert rows(one[name], *but) == rows(many[name], *but)


def test_a_model_may_be_left_out(folder: Path, tmp_path: Path) -> None:
    manifest = str(folder / "m.jsonl")
    assert run_here(manifest=manifest, output=str(tmp_path / "a"), detector=None) == {
        "labels": 3,
        "boxes": 0,
        "errors": 5,
    }
    labels = tables(tmp_path / "a")["labels"]
    assert labels["object_count"].null_count == labels["class_counts"].null_count == 3
    run_here(manifest=manifest, output=str(tmp_path / "b"), classifier=None)
    found = tables(tmp_path / "b")
    assert found["labels"]["label"].null_count == found["labels"]["topk"].null_count == 3
    assert found["labels"]["object_count"].to_pylist() == [
        sum(index == row for index in found["boxes"]["manifest_index"].to_pylist()) for row in (0, 4, 7)
    ]


def test_manifest_images_and_tables_may_all_be_in_buckets(
    folder: Path, labelled: Path, tmp_path: Path, s3: S3Server
) -> None:
    bucket, files = s3.new_bucket(), s3.files()
    for path in folder.iterdir():
        files.put(str(path), f"{bucket}/in/{path.name}")
    job: dict[str, Any] = {"manifest": f"s3://{bucket}/in/m.parquet", "output": f"s3://{bucket}/out"}
    sums = run_here(**job, units={"rows": 8}, **FURTHER)
    files.get(f"{bucket}/out/", str(tmp_path / "copy"), recursive=True)
    remote, local = tables(tmp_path / "copy"), tables(labelled)
    assert sums == {name: table.num_rows for name, table in local.items()}
    for name in local:
        where = ("message", "uri", "key")  # that says where the photos are
        assert rows(remote[name], *where) == rows(local[name], *where)
    assert files.exists(f"{bucket}/out/_SUCCESS")


def test_a_run_over_its_failure_budget_stops_and_goes_on_when_it_is_raised(
    folder: Path, tmp_path: Path
) -> None:
    job: dict[str, Any] = {"manifest": str(folder / "m.parquet"), "output": str(tmp_path / "out")}
    with pytest.raises(FailureBudgetError, match=r"images done have failed \(.*\), and max_failed is 0\.25"):
        run_here(**job, max_failed=0.25)
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    with pytest.raises(FailureBudgetError, match="and max_failed is 4"):
        run_here(**job, max_failed=4)
    assert run_here(**job, max_failed=5)["errors"] == 5


def test_a_malformed_manifest_is_refused_from_the_task_that_read_it(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"uri": "a.jpg"}\n{"uri"\n')
    with pytest.raises(ManifestError, match="line 2 is not JSON"):
        run_here(manifest=str(tmp_path / "m.jsonl"), output=str(tmp_path / "out"))
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.slow
def test_a_search_finds_what_was_labelled_what_failed_and_what_looks_like_a_photo(
    labelled: Path, folder: Path, tmp_path: Path
) -> None:
    make_index(str(labelled), tmp_path / "index.duckdb")
    photo = shutil.copy(folder / "chelsea.png", tmp_path / "another name.png")
    with Searcher(str(labelled), tmp_path / "index.duckdb") as searcher:

        def found(query: str, like: str | None = None) -> list[int]:
            with searcher.search(query) as hits:
                if like:
                    hits.narrow(searcher.similar(hits, like, 2))
                return [hit.manifest_index for hit in hits.first(10)]

        assert found("cat") == found('"tiger cat"') == found("tagger.scene:tabby OR cat") == [4]
        assert found("error:NOT_FOUND") == [2, 5]
        assert found("error:* split=test") == [2, 6]
        assert found("", str(photo))[0] == 4
        assert found("-cat", str(photo)) == found("-cat", "4")
        assert found("", "chelsea.png") == found("", "4")
        for wrong, why in (("nowhere.jpg", "there is no such file"), ("page.jpg", "[Nn]ot an image")):
            with pytest.raises(StorageError, match=f"--like .*{why}"):
                found("", str(folder / wrong))
        with pytest.raises(SpecError, match="row 2 has no embedding: it failed"):
            found("", str(folder / "gone.jpg"))


def test_what_the_detector_finds_goes_through_a_tagger_and_an_embedder(photos: Path, tmp_path: Path) -> None:
    what = {"model": "efficientnet_lite0", "on": "boxes", "classes": ["cat", "cup"], "margin": 0.1}
    job: dict[str, Any] = {
        "manifest": str(photos),
        "classifier": None,
        "detector": {"model": "nanodet_g", "score_threshold": 0.33},
        "taggers": {"word": {**what, "class_map": "wordnet", "top_k": 1}},
        "embedder": {"model": "efficientnet_lite0", "on": "boxes"},
        "units": {"rows": 2},
    }
    output = tmp_path / "out"
    sums = run_here(**job, output=str(output))
    found = tables(output)
    assert sums == {name: table.num_rows for name, table in found.items()}
    boxes, vectors = found["boxes"].to_pylist(), found["object_embeddings"].to_pylist()
    places = [(box["manifest_index"], box["object_index"]) for box in boxes]
    assert [(one["manifest_index"], one["object_index"]) for one in vectors] == places
    assert "embeddings" not in found
    tags = {(tag["manifest_index"], tag["object_index"]): tag for tag in found["tags"].to_pylist()}
    sent = [
        (box["class_name"], tags[place]["label"])
        for place, box in zip(places, boxes, strict=True)
        if place in tags
    ]
    assert sent == [("cat", "cat"), ("cup", "coffee")]
    assert len(tags) == len(sent)
    assert all(tag["score"] > 0.9 for tag in tags.values())
    assert verify_run(str(output)).issues == ()

    job["taggers"]["word"]["margin"] = 0.2
    with pytest.raises(OutputConflictError, match=r"taggers\.word"):
        run_here(**job, output=str(output))
