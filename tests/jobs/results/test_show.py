import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.results.images import Box, Selection
from jobs.results.show import show_run
from schemas.exceptions import SpecError, StorageError
from tests.jobs.results.test_datasets import begun, publish
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


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run of three photos."""
    files = {f"{tmp_path}/{name}.png": png(64, 48) for name in ("one", "two", "été")}
    for name, data in files.items():
        Path(name).write_bytes(data)
    put_run(tmp_path / "run", files, {0: [Box(7, "dog", 0.5, 1, 2, 30, 40)]})
    spec = record().spec
    spec["fetch"]["max_bytes"] = 1_000_000
    Store(str(tmp_path / "run")).write("run.json", record(spec=spec).to_json())
    return str(tmp_path / "run")


def test_a_drawing_takes_the_place_of_an_earlier_one_as_a_whole(run: str, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    show_run(run, Selection(limit=20), pictures)
    assert sorted(os.listdir(pictures)) == [
        "00000-one.jpg",
        "00001-two.jpg",
        "00002-été.jpg",
        "contact-sheet.jpg",
    ]
    with pytest.raises(SpecError, match="nonsense"):
        show_run(run, Selection(where="nonsense = 1"), pictures)
    assert len(os.listdir(pictures)) == 4
    show_run(run, Selection(where="manifest_index = 1"), pictures)
    assert sorted(os.listdir(pictures)) == ["00001-two.jpg", "contact-sheet.jpg"]


@pytest.mark.parametrize("names", [["mine.txt"], ["contact-sheet.jpg", "b.jpg"], ["00000-one.jpg"]])
def test_a_folder_with_other_files_is_not_drawn_into(run: str, tmp_path: Path, names: list[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    with pytest.raises(StorageError, match=r"mine holds other files, such as .*; name a folder that does"):
        show_run(run, Selection(), folder)
    assert {name: (folder / name).read_text() for name in os.listdir(folder)} == dict.fromkeys(names, "mine")


@pytest.mark.parametrize("name", ["run/labels", "one.png", "one.png/new", "/proc/none/new"])
def test_a_place_where_nothing_can_be_drawn_is_told_in_a_sentence(
    run: str, tmp_path: Path, name: str
) -> None:
    with pytest.raises(StorageError, match=r"^cannot write [^\n]+$"):
        show_run(run, Selection(), tmp_path / name)


def test_of_an_unfinished_run_it_is_said_that_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "run")
    publish(begun(output), 0)
    capsys.readouterr()
    show_run(output, Selection(limit=1))
    note = f"note: {output} is not complete: 1 of 3 shards are published"
    assert note in capsys.readouterr().out.splitlines()
    assert is_complete(output, capsys) is False
    Store(output).write("_SUCCESS", b'{"labels": 18, "boxes": 1, "errors": 1}')
    assert is_complete(output, capsys) is True


def is_complete(output: str, capsys: pytest.CaptureFixture[str]) -> Any:
    show_run(output, Selection(limit=1), as_json=True)
    return json.loads(capsys.readouterr().out)["complete"]
