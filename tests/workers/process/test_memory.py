from pathlib import Path

import psutil
import pytest

from workers.process import memory
from workers.process.memory import Memory


def test_without_a_container_the_machine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "GROUPS", ())
    assert memory.memory().limit == psutil.virtual_memory().total


@pytest.mark.parametrize(("limit", "stat"), [("4000", "anon 9\ninactive_file 1000"), ("4000", "")])
def test_a_containers_limit_counts_and_files_that_can_be_dropped_are_no_use(
    limit: str, stat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"memory.max": limit, "memory.current": "3900\n", "memory.stat": stat}.items():
        (tmp_path / name).write_text(text)
    group = (f"{tmp_path}/memory.max", f"{tmp_path}/memory.current", "inactive_file")
    monkeypatch.setattr(memory, "GROUPS", (("/nowhere/memory.max", "/nowhere/memory.current", "x"), group))
    used = memory.memory()
    assert used == Memory(2900 if stat else 3900, 4000)
    assert used.is_nearly_full == (not stat)


def test_a_container_without_a_limit_is_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(memory, "GROUPS", ((f"{tmp_path}/memory.max", f"{tmp_path}/memory.current", "x"),))
    assert memory.memory().limit == psutil.virtual_memory().total
