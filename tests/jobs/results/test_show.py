from pathlib import Path

import pytest

from jobs.results.images import Box, Selection
from jobs.results.show import show_run
from tests.jobs.results.test_draw import png, put_run
from tests.workers.tables.made_results import record
from workers.storage.store import Store


def test_photos_that_are_gone_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    gone = {f"{tmp_path}/{n}.png": png(64, 48) for n in range(7)}
    files = {f"{tmp_path}/good.png": png(640, 480), **gone}
    put_run(tmp_path / "run", files, {0: [Box(7, "dog", 0.5, 100, 200, 300, 400)]})
    spec = record().spec
    spec["fetch"]["max_bytes"] = 1_000_000
    Store(str(tmp_path / "run")).write("run.json", record(spec=spec).to_json())
    (tmp_path / "good.png").write_bytes(files[f"{tmp_path}/good.png"])
    show_run(str(tmp_path / "run"), Selection(limit=20), tmp_path / "pictures")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-7:] == [
        *(f"not drawn: {tmp_path}/{n}.png: it is not there any more" for n in range(5)),
        "not drawn: 2 more",
        f"1 picture drawn: {tmp_path}/pictures",
    ]
