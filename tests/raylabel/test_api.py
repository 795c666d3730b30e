"""raylabel in Python, as far as no image is labelled: runs that are there, jobs that cannot run."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

import raylabel
from raylabel.api import Job
from tests.jobs.results.test_datasets import begun, publish
from tests.jobs.results.test_draw import png, put_run
from tests.s3 import S3Server
from tests.test_docs import PRINTED
from tests.workers.tables.made_results import MODELS, record
from workers.ledger.runs import begin_run
from workers.storage.store import Store


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run of which one shard of three is published: a relative path."""
    monkeypatch.chdir(tmp_path)
    publish(begun("out"), 0)
    return "out"


def test_a_run_says_what_it_is_of(output: str) -> None:
    assert repr(raylabel.open_run(output)) == (
        "<raylabel.Run 'out': 50 images, classifier guess, detector find, embedder feel, "
        "embedder of objects feel one, taggers.scene look>"
    )


def test_its_tables_are_datasets(output: str) -> None:
    run = raylabel.open_run(Path(output))
    tables = {"labels": run.labels(), "boxes": run.boxes(), "errors": run.errors()}
    tables |= {"tags": run.tags(), "embeddings": run.embeddings()}
    assert all(isinstance(table, ds.Dataset) for table in tables.values())
    assert {name: table.count_rows() for name, table in tables.items()} == {
        "labels": 18,
        "boxes": 18,
        "errors": 6,
        "tags": 30,
        "embeddings": 18,
    }


def test_a_table_that_it_does_not_have_is_refused(tmp_path: Path) -> None:
    begin_run(Store(str(tmp_path)), record(models={"detector": MODELS["detector"]}))
    run = raylabel.open_run(tmp_path)
    for name, table, key in (("tags", run.tags, "taggers:"), ("embeddings", run.embeddings, "embedder:")):
        with pytest.raises(raylabel.SpecError, match=f"has no table {name}; .*`{key}"):
            table()


def test_its_summary_counts_what_is_published(output: str) -> None:
    summary = raylabel.open_run(output).summary()
    assert (summary["labelled"], summary["failed"], summary["objects"]) == (18, 6, 18)
    assert summary["labels"] == ({"label": "palace", "images": 18},)
    (errors,) = summary["errors"]
    assert (errors["stage"], errors["code"], errors["images"]) == ("decode", "TRUNCATED", 6)
    assert sum(summary["scores"]) == sum(summary["objects_per_image"]) == 18


def test_it_answers_queries(output: str) -> None:
    run = raylabel.open_run(output)
    table = run.sql("SELECT class_name, count(*) AS n FROM objects GROUP BY class_name ORDER BY class_name")
    assert table.to_pydict() == {"class_name": ["boat", "person"], "n": [6, 12]}
    with pytest.raises(raylabel.SpecError, match=r"Referenced column .*lable"):
        run.sql("SELECT lable FROM labels")


def test_its_status_is_what_the_command_prints(output: str) -> None:
    status = raylabel.open_run(output).status()
    assert set(status) == PRINTED["status"]
    assert (status["state"], status["rows"], status["done"]) == ("not_started", 50, 24)


def test_it_stays_where_it_is_when_the_working_directory_changes(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = raylabel.open_run(output)
    monkeypatch.chdir("/")
    assert run.labels().count_rows() == run.summary()["labelled"] == 18


def test_it_can_be_pickled(output: str) -> None:
    run = raylabel.open_run(output)
    back = pickle.loads(pickle.dumps(run))
    assert (repr(back), back.boxes().count_rows()) == (repr(run), 18)


def test_its_photos_are_drawn_and_those_that_are_gone_are_told(tmp_path: Path) -> None:
    good, gone = tmp_path / "good.png", tmp_path / "gone.png"
    good.write_bytes(png(640, 480))
    put_run(tmp_path / "run", {str(good): good.read_bytes(), str(gone): png(64, 48)}, {})
    spec = record().spec
    spec["fetch"]["max_bytes"] = 1_000_000
    Store(str(tmp_path / "run")).write("run.json", record(spec=spec).to_json())
    with pytest.warns(UserWarning, match=rf"^not drawn: {gone}: it is not there any more"):
        pictures = raylabel.open_run(tmp_path / "run").draw(tmp_path / "pictures")
    assert pictures == [tmp_path / "pictures" / "00000-good.jpg"]
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "00000-good.jpg",
        "contact-sheet.jpg",
    }


def test_where_no_run_is_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(raylabel.StorageError, match="found no run at"):
        raylabel.open_run(tmp_path)


@pytest.fixture
def job(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A job with a run in a bucket that only its storage section leads to."""
    bucket = s3.new_bucket()
    publish(begun(f"s3://{bucket}/out"), 0)
    for name in s3.environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("OF_JOB_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("OF_JOB_SECRET_ACCESS_KEY", s3.secret)
    access = {"endpoint": s3.endpoint, "region": "us-east-1", "credentials_env_prefix": "OF_JOB"}
    return {
        "manifest": "photos.csv",
        "output": f"s3://{bucket}/out",
        "storage": {f"s3://{bucket}/": access},
    }


def test_a_run_is_reached_as_its_job_says(job: dict[str, Any], output: str) -> None:
    run, here = raylabel.open_run(job), raylabel.open_run(output)
    labels = run.labels()
    assert here.labels().to_table().equals(labels.to_table())  # read after another run was
    assert run.summary()["labelled"] == 18
    assert run.status()["output"] == job["output"]
    assert pickle.loads(pickle.dumps(labels)).count_rows() == 18


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"manifest": "photos.csv"}, "the job is not a job that can run:\n  output: missing"),
        ({"manifest": "photos.csv", "output": "out", "classifer": None}, "did you mean classifier?"),
        (
            {"manifest": "photos.csv", "output": "out", "taggers": {"a": {"model": "x", True: "box"}}},
            "taggers.a.on: found 'box'; allowed: 'image' or 'boxes'",  # `on: box` by yaml.safe_load
        ),
        ("gone.yaml", "cannot read the job spec gone.yaml: No such file"),
        (Path("gone.yaml"), "cannot read the job spec gone.yaml: No such file"),
        (
            {
                "manifest": "photos.csv",
                "output": "out",
                "detector": {"model": "mine:make", "options": {"model": object()}},
            },
            "the job has a value of type object; allowed: text, numbers",
        ),
    ],
)
def test_a_job_that_is_wrong_is_refused_before_a_process_is_started(
    job: Job, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(raylabel.SpecError) as refused:
        raylabel.label(job, progress=None)
    assert message in str(refused.value)


def test_a_job_that_fails_raises_what_the_command_says(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = {"manifest": [photos], "output": tmp_path / "out", "detector": None}
    with pytest.raises(raylabel.ClusterError, match=r"cannot join a Ray cluster at 127\.0\.0\.1:9: "):
        raylabel.label(job, address="127.0.0.1:9", progress=False)
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_moved_is_opened_where_it_is(output: str) -> None:
    shutil.move(output, "moved")
    assert raylabel.open_run("moved").labels().count_rows() == 18
