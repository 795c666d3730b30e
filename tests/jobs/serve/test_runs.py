import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.search.build import make_index
from jobs.serve import runs as module
from jobs.serve.runs import open_runs
from tests.jobs.serve.conftest import serving
from workers.storage.store import Store


def total(client: httpx.Client) -> Any:
    return client.get("/api/search", params={"q": "label:cat"}).json()["total"]


def test_an_index_that_is_made_again_is_taken_up(own_run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    with serving(own_run) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert total(client) == 8
        for min_label_score, images in ((0.2, 0), (0.1, 8), (0.2, 0)):
            make_index(own_run, min_label_score=min_label_score)
            assert total(client) == images
        Path(own_run, "search.duckdb").unlink()
        assert total(client) == 0


def test_an_index_that_cannot_be_opened_is_told_of_once_and_the_older_one_stays(
    own_run: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    with open_runs([own_run]) as runs:
        before = runs.current("run")
        Store(own_run).write("_SUCCESS", json.dumps({"labels": 8, "boxes": 9, "errors": 1}).encode())
        assert runs.current("run") is before
        Path(own_run, "search.duckdb").unlink()
        Path(own_run, "search.duckdb").write_bytes(b"no index")
        capfd.readouterr()
        for _ in range(3):
            assert runs.current("run") is before
        said = capfd.readouterr().err
        assert said.startswith(f"raylabel: note: run is shown as it was: {own_run}/search.duckdb is damaged")
        assert said.count("\n") == 1
        with before.searcher.search("person") as hits:
            assert hits.total == 3
        make_index(own_run)
        assert runs.current("run").version != before.version


def test_the_file_is_not_looked_at_for_each_request(own_run: str) -> None:
    with open_runs([own_run]) as runs:
        before = runs.current("run")
        make_index(own_run, min_label_score=0.5)
        assert runs.current("run") is before
