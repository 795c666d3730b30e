"""Failed rows once more, and a run begun anew."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.prepare.begun import begun_spec
from jobs.run.retry import begin_retry, codes_of, outcome_of_retry
from schemas.exceptions import OutputConflictError
from schemas.spec import JobSpec
from tests.image_server import ImageServer, serving
from tests.integration.jobs_here import label_here, raylabel, rows, run_here, tables
from workers.ledger.runs import find_run
from workers.ledger.state import read_success
from workers.storage.store import Store

pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture
def server(photos: Path) -> Iterator[ImageServer]:
    with serving(photos) as server:
        yield server


@pytest.fixture
def job(server: ImageServer, photos: Path, tmp_path: Path) -> dict[str, Any]:
    """Twenty-one images on the web in units of four and shards of eight."""
    names = sorted(path.name for path in photos.glob("*.[pj]*g"))
    manifest = tmp_path / "manifest.csv"
    lines = [f"{server.url(f'{n}/{name}')},{n}" for n, name in enumerate(names * 3)]
    manifest.write_text("uri,number\n" + "\n".join(lines))
    units = {"rows": 4, "shard_rows": 8}
    return {
        "manifest": str(manifest),
        "detector": None,
        "units": units,
        "fetch": {"attempts": 1, "throttle_timeout_s": 0},
    }


def retry_here(output: Path, codes: list[str] | None) -> dict[str, int]:
    spec: JobSpec = begun_spec(str(output), {})
    assert begin_retry(str(output), codes_of(codes))
    return label_here(spec, find_run(str(output)).record.manifest)


def test_a_retry_labels_failed_rows_without_the_manifest_and_the_rest_stays_as_it_is(
    server: ImageServer, job: dict[str, Any], tmp_path: Path
) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    run_here(**job, output=str(whole))

    answers = {3: 503, 5: 404, 6: 503, 12: 503, 13: 404, 20: 503}
    server.answer = lambda path, _before, _port: answers.get(int(path.split("/")[1]), 200)
    assert run_here(**job, output=str(output)) == {"labels": 15, "boxes": 0, "errors": 6}
    before = tables(output)
    refused = raylabel("retry", str(output), "--address", "http://head:8265")
    assert refused.returncode == 2
    assert read_success(Store(str(output))) == {"labels": 15, "boxes": 0, "errors": 6}

    manifest = Path(str(job["manifest"]))
    manifest.unlink()
    answers = {6: 503}  # the others are back
    server.requests.clear()
    assert retry_here(output, ["THROTTLED"]) == {"labels": 18, "boxes": 0, "errors": 3}
    assert sorted(int(path.split("/")[1]) for path in server.requests) == [3, 6, 12, 20]
    assert outcome_of_retry(str(output)) == "3 of 4 retried images labelled, 1 failed again"
    after, undisturbed = tables(output), tables(whole)
    assert_same_labels(
        after["labels"], undisturbed["labels"].filter(pc.invert(among(undisturbed["labels"], 5, 6, 13)))
    )
    assert [(row["manifest_index"], row["code"]) for row in after["errors"].to_pylist()] == [
        (5, "NOT_FOUND"),
        (6, "THROTTLED"),
        (13, "NOT_FOUND"),
    ]
    old = {row["manifest_index"]: row for row in before["labels"].to_pylist()}
    assert [row for row in after["labels"].to_pylist() if row["manifest_index"] in old] == list(old.values())

    answers = {}
    manifest.write_text("uri,other\n/no/image.jpg,1\n")
    assert retry_here(output, ["NOT_FOUND", "THROTTLED"]) == {"labels": 21, "boxes": 0, "errors": 0}
    assert_same_labels(tables(output)["labels"], undisturbed["labels"])
    assert begin_retry(str(output), codes_of(None)) is None
    assert read_success(Store(str(output))) == {"labels": 21, "boxes": 0, "errors": 0}


def among(table: pa.Table, *rows: int) -> pa.ChunkedArray:
    return pc.is_in(table["manifest_index"], pa.array(rows))


def assert_same_labels(found: pa.Table, expected: pa.Table) -> None:
    """The same labels; scores nearly, as images that are retried are in smaller batches."""
    assert rows(found, "score", "topk") == rows(expected, "score", "topk")
    assert found["score"].to_pylist() == pytest.approx(expected["score"].to_pylist(), abs=1e-5)


@pytest.mark.slow
def test_another_manifest_model_threshold_or_code_is_refused_or_begins_anew_with_restart(
    job: dict[str, Any], tmp_path: Path
) -> None:
    output, fresh = tmp_path / "out", tmp_path / "fresh"
    run_here(**job, output=str(output))
    record = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**record, "code": {**record["code"], "tables": {}}}))
    manifest = Path(str(job["manifest"]))
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:8]))
    changed = {**job, "output": str(output), "classifier": {"top_k": 2}}
    with pytest.raises(OutputConflictError) as refused:
        run_here(**changed)
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == [
        "classifier.settings.top_k",
        "manifest",
        "tables",
    ]
    assert lines[-1] == "Choose another output, or start over with --restart, which deletes its tables"
    assert len(tables(output)["labels"]) == 21

    assert run_here(**changed, restart=True) == {"labels": 7, "boxes": 0, "errors": 0}
    run_here(**{**changed, "output": str(fresh)})
    assert rows(tables(output)["labels"]) == rows(tables(fresh)["labels"])
    kept = [path.name for path in (output / "_work").iterdir() if path.name not in ("manifest", "tmp")]
    assert kept == [json.loads((output / "run.json").read_text())["id"]]
