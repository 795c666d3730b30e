from pathlib import Path

import psutil
import pytest

from workers.process.memory import Memory, memory

MACHINE = psutil.virtual_memory().total


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """Where control groups are mounted, version 2; this process is in the group `slurm/job/step`."""
    (tmp_path / "slurm" / "job" / "step").mkdir(parents=True)
    (tmp_path / "membership").write_text("0::/slurm/job/step\n")
    return tmp_path


def limit(group: Path, **files: str) -> None:
    for name, text in files.items():
        (group / name.replace("_", ".", 1)).write_text(text)


def test_without_a_container_the_machine_counts(tmp_path: Path) -> None:
    assert memory(tmp_path / "membership", tmp_path).limit == MACHINE


@pytest.mark.parametrize(("limit", "stat"), [("4000", "anon 9\ninactive_file 1000"), ("4000", "")])
def test_a_containers_limit_counts_and_files_that_can_be_dropped_are_no_use(
    limit: str, stat: str, tmp_path: Path
) -> None:
    for name, text in {"memory.max": limit, "memory.current": "3900\n", "memory.stat": stat}.items():
        (tmp_path / name).write_text(text)
    used = memory(tmp_path / "membership", tmp_path)
    assert used == Memory(2900 if stat else 3900, 4000)
    assert used.is_nearly_full == (not stat)


def test_a_container_without_a_limit_is_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert memory(tmp_path / "membership", tmp_path).limit == MACHINE


def test_of_a_group_within_others_the_tightest_limit_counts(group: Path) -> None:
    limit(group / "slurm", memory_max="9000", memory_current="5000")
    limit(group / "slurm" / "job", memory_max="4000", memory_current="3000")
    limit(group / "slurm" / "job" / "step", memory_max="max", memory_current="10")
    assert memory(group / "membership", group) == Memory(3000, 4000)


def test_a_group_of_version_1_counts_as_well(tmp_path: Path) -> None:
    group = tmp_path / "memory" / "job"
    group.mkdir(parents=True)
    (tmp_path / "membership").write_text("9:cpu,cpuacct:/else\n4:memory:/job\n0::/\n")
    (group / "memory.limit_in_bytes").write_text("4000\n")
    (group / "memory.usage_in_bytes").write_text("3000\n")
    (group / "memory.stat").write_text("total_inactive_file 500\n")
    assert memory(tmp_path / "membership", tmp_path) == Memory(2500, 4000)


def test_a_group_whose_path_is_the_hosts_leaves_the_containers_own_limit(tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("0::/docker/0123456789\n")
    (tmp_path / "memory.max").write_text("4000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    assert memory(tmp_path / "membership", tmp_path) == Memory(3000, 4000)
