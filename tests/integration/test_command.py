"""The command as a user runs it: its own Ray, its exit codes, what it prints and leaves behind."""

import json
import os
import re
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tests.integration.jobs_here import events, raylabel, tables
from tests.workers.models import golden


@pytest.fixture(scope="module")
def demo(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo job, planned and run once by command."""
    folder = tmp_path_factory.mktemp("demo")
    output, named = folder / "run", os.path.relpath(shutil.copytree(photos, folder / "photos"))
    arguments = ["--manifest", f"{named}/", "--output", str(output), "--json"]
    planned = raylabel("plan", *arguments)
    assert (planned.returncode, planned.stderr) == (0, "")
    (plan,) = events(planned)
    done = raylabel("run", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    *_, last = events(done)
    predicted = last.pop("predicted")
    assert predicted["images_per_s"] == round(plan["images_per_s"], 2)
    assert predicted["seconds"] == round(plan["seconds"], 1)
    assert predicted["relative_error"] >= 0  # as told where a person reads it, of the cluster it was made for
    assert predicted["cluster"] == plan["cluster"]
    assert {k: v for k, v in last.items() if k != "seconds"} == {
        "event": "complete",
        "output": str(output),
        "up_to_date": False,
        "labels": 7,
        "boxes": 4,
        "errors": 0,
    }
    return output


def test_the_demo_photos_are_labelled_as_recorded_one_at_a_time(demo: Path) -> None:
    names = [Path(uri).name for uri in tables(demo)["labels"]["uri"].to_pylist()]
    assert names == sorted(golden.expected("classifier")) == sorted(golden.expected("detector"))
    golden.assert_recorded(tables(demo), names)


def test_any_reader_sees_the_tables_by_globbing_their_folders(demo: Path) -> None:
    for name, table in tables(demo).items():
        assert duckdb.sql(f"select count(*) from '{demo}/{name}/*.parquet'").fetchall() == [(table.num_rows,)]
        assert len(pd.read_parquet(demo / name)) == table.num_rows
    counted = duckdb.sql(
        f"select l.label, b.class_name, count(*) from '{demo}/labels/*.parquet' l "
        f"join '{demo}/boxes/*.parquet' b using (manifest_index) group by all order by all"
    )
    assert counted.fetchall() == [
        ("football helmet", "person", 1),
        ("tiger cat", "cat", 1),
        ("tiger cat", "dog", 1),
        ("tripod", "person", 1),
    ]


def test_the_run_directory_holds_what_the_design_says(demo: Path) -> None:
    assert sorted(path.name for path in demo.iterdir()) == [
        "_SUCCESS",
        "_work",
        "boxes",
        "errors",
        "labels",
        "report.html",
        "run.json",
    ]
    record = json.loads((demo / "run.json").read_text())
    assert record["plan"] == {"rows": 7, "unit_rows": 1, "shard_units": 100_000}
    assert record["spec"]["detector"]["score_threshold"] == 0.4
    assert len(record["models"]["classifier"]["categories"]) == 1000
    assert json.loads((demo / "_SUCCESS").read_text()) == {"labels": 7, "boxes": 4, "errors": 0}
    report = (demo / "report.html").read_text()
    assert "espresso" in report
    assert re.search(r"images/s and [\d,]+ s by `raylabel plan`; it took .*% off", report)


@pytest.mark.parametrize("manifest", ["there", "gone"])
def test_a_complete_run_says_so_and_does_nothing(demo: Path, manifest: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    photos = demo.with_name("photos")
    kept = photos if manifest == "there" else photos.rename(demo.with_name("elsewhere"))
    done = raylabel("run", str(demo))  # the job that began it, whose manifest was a relative folder
    kept.rename(photos)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout == f"{demo} is complete: 7 images labelled, 4 objects, 0 images failed. Nothing to do.\n"
    )
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_a_run_that_was_planned_is_proven_like_any_other(demo: Path) -> None:
    done = raylabel("reconcile", str(demo), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert (demo / "_work" / "prediction.json").exists()


def test_a_complete_run_can_still_be_planned_and_keeps_its_own_prediction(demo: Path) -> None:
    photos = demo.with_name("photos")
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    done = raylabel("plan", "--manifest", str(photos), "--output", str(demo), "--sample", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "probed: 1 of 7 images" in done.stdout
    assert "kept:" not in done.stdout
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_another_threshold_or_model_in_the_same_output_is_refused_with_the_difference(
    demo: Path,
) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    arguments = ["run", "--manifest", str(demo.with_name("photos")), "--output", str(demo)]
    other = raylabel(*arguments, "--set", "detector.score_threshold=0.5", "--classifier", "none")
    assert (other.returncode, other.stdout) == (6, "")
    assert "holds a run whose rows would differ from this job's" in other.stderr
    assert "detector.settings.score_threshold: 0.4 there, 0.5 now" in other.stderr
    assert "classifier: efficientnet_lite0 there, nothing now" in other.stderr
    assert "Choose another output" in other.stderr
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_a_job_of_a_complete_run_with_another_manifest_that_is_not_there_is_refused(demo: Path) -> None:
    done = raylabel("run", str(demo), "--manifest", "nowhere.csv")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"raylabel: found no manifest at {os.path.abspath('nowhere.csv')}. ")


def test_show_prints_what_was_found_and_draws_it(demo: Path, tmp_path: Path) -> None:
    done = raylabel("show", str(demo), "--draw", str(tmp_path / "pictures"))
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in ("chelsea.png", "tiger cat", "espresso", "person"))
    drawn = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert len(drawn) == 8
    assert drawn[-1] == "contact-sheet.jpg"
