"""Ray's processes, and a GCS elsewhere: when one is gone, that is said once."""

import queue
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray

from jobs.cluster.watch import is_gone, joined_raylet, silence_of, watching, watching_start
from workers.process.limits import low_limits


def test_a_process_that_has_ended_is_gone_also_before_its_parent_knows() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    assert not is_gone(process)
    child.kill()
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        pass
    assert is_gone(process)
    child.communicate()
    assert is_gone(process)


def test_of_several_nodes_on_a_machine_the_one_that_was_joined_is_watched(tmp_path: Path) -> None:
    program = tmp_path / "raylet"
    program.symlink_to(sys.executable)
    command = [str(program), "-c", "input()"]
    sockets = [f"{tmp_path}/sockets/raylet", f"{tmp_path}/sockets/raylet.1"]
    children = [
        subprocess.Popen([*command, f"--raylet_socket_name={name}"], stdin=subprocess.PIPE)
        for name in sockets
    ]
    try:
        for name, child in zip(sockets, children, strict=True):
            assert [process.pid for process in joined_raylet(name)] == [child.pid]
    finally:
        for child in children:
            child.communicate()


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_ray_that_is_killed_while_it_starts_is_told_of(name: str, tmp_path: Path) -> None:
    told: queue.Queue[str] = queue.Queue()
    program = tmp_path / name
    program.symlink_to(str(shutil.which("sleep")))
    with watching_start(told.put):
        child = subprocess.Popen([program, "60"])
        time.sleep(0.5)
        child.kill()
        assert told.get(timeout=30) == f"Ray's process {name} has died"
    child.wait()


def test_what_fails_by_itself_while_ray_starts_is_told_of_with_low_limits(tmp_path: Path) -> None:
    told: queue.Queue[str] = queue.Queue()
    program = tmp_path / "raylet"
    program.symlink_to(str(shutil.which("sleep")))
    with watching_start(told.put):
        child = subprocess.Popen([program, "60"])
        time.sleep(0.5)
        child.send_signal(signal.SIGABRT)
        assert told.get(timeout=30) == f"Ray's process raylet has failed while it started{low_limits()}"
    child.wait()


def test_a_gcs_that_is_silent_is_told_of_before_ray_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.cluster.watch.ASK_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gcs = f"127.0.0.1:{silent.getsockname()[1]}"
        assert silence_of(gcs)() is None  # Ray waits for a minute
        monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "0.1")
        assert str(silence_of(gcs)()).startswith(f"Ray's GCS at {gcs} has not answered for ")


def test_a_process_of_ray_that_ended_before_it_was_watched_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    processes = {"raylet": [SimpleNamespace(process=process)]}
    node = SimpleNamespace(all_processes=processes, raylet_socket_name="", gcs_address="")
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    told: list[str] = []
    with watching(told.append):
        pass
    assert told == ["Ray's process raylet has died"]
