from pathlib import Path

import pytest

from jobs.cluster.own import SOCKET_BYTES, own_options
from tests.shell import PYTHON, shell
from workers.process.cpus import usable_cpus
from workers.process.sockets import MAX_PATH, SHORT

ASK = "from jobs.cluster.own import *; print(own_options().get('object_store_memory'))"


def test_a_ray_of_its_own_has_the_cores_that_this_process_may_use() -> None:
    assert own_options()["num_cpus"] == usable_cpus()


def test_a_long_path_of_temporary_files_is_not_rays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "_temp_dir" not in own_options()
    for folder in (tmp_path / ("long" * 20), tmp_path / "gone"):
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        chosen = own_options()["_temp_dir"]
        assert chosen in {f"{short}/ray" for short in SHORT}
        assert len(chosen) - len("/ray") + SOCKET_BYTES <= MAX_PATH


def test_low_limits_of_the_shell_are_kept_to_or_named() -> None:
    assert shell(f"ulimit -v 4500000; {PYTHON}", ASK).stdout == f"{(4_500_000 << 10) - (4 << 30)}\n"
    done = shell(f"ulimit -f 1000; {PYTHON}", ASK)
    assert done.stderr.splitlines()[-1].partition(": ")[2] == (
        "`ulimit -f` limits this process to 1,000 KB, which is too little for "
        "a Ray; raise it (`ulimit -f unlimited`) and run the command again"
    )
