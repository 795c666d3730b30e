"""A Ray cluster of several nodes on this machine, whose nodes can be killed."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from jobs.cluster.connect import one_start_at_a_time
from tests.s3 import free_ports

RAY = str(Path(sys.executable).parent / "ray")


class Nodes:
    """A head, which takes no work unless it is given CPUs, and workers of two CPUs.

    Attributes:
        address: to join the cluster at.
        dashboard: its URL, where there is one.
        metrics: the URL at which the head tells Prometheus of itself.
        head: the head's process.
        workers: the workers' processes.
    """

    def __init__(self, folder: str, environment: dict[str, str]) -> None:
        port, dashboard, metrics = free_ports(3)
        self.address, self.dashboard = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
        self.metrics = f"http://127.0.0.1:{metrics}"
        self._folder, self._environment = folder, {**os.environ, **environment}
        self._started = 0
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_head(self, cpus: int, *, dashboard: bool = False) -> None:
        """Starts the head and waits until it runs."""
        own = {port_of(url) for url in (self.address, self.dashboard, self.metrics)}
        # else those that another head on this machine has
        client, agent, *_ = (port for port in free_ports(2 + len(own)) if str(port) not in own)
        arguments = [f"--port={port_of(self.address)}", f"--num-cpus={cpus}"]
        arguments += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"]
        arguments += [f"--metrics-export-port={port_of(self.metrics)}"]
        arguments += [f"--include-dashboard={str(dashboard).lower()}"]
        arguments += [f"--dashboard-port={port_of(self.dashboard)}"] if dashboard else []
        self.head = self._start("--head", *arguments)

    def kill_head(self) -> None:
        """Kills the head and all that it had started, at once; it can be started again."""
        _kill(self.head)

    def add(self, cpus: int = 2, gpus: int = 0, **resources: float) -> None:
        """Starts one more worker, with GPUs that it only pretends to have, and waits until it has joined."""
        has = [f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--resources={json.dumps(resources)}"]
        self.workers.append(self._start(f"--address={self.address}", *has))

    def actors(self, number: int, stage: str) -> int:
        """Actors of a stage, "LabelActor" or "DecodeActor", on a worker."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.workers[number].pid).children(recursive=True)
            named = f"MapWorker(MapBatches({stage}))"
            return sum(named in " ".join(each.cmdline()) for each in family if each.is_running())
        return 0

    def kill(self, number: int) -> None:
        """Kills a worker's raylet and all that it had started, at once."""
        _kill(self.workers[number])

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        self._started += 1
        command = [RAY, "start", "--block", "--node-ip-address=127.0.0.1", *arguments]
        command += [f"--temp-dir={self._folder}", "--object-store-memory=150000000"]
        with one_start_at_a_time():
            with Path(self._folder, f"node-{self._started}.log").open("w") as log:
                process = subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, env=self._environment
                )
            end = time.monotonic() + 120
            while "Ray runtime started" not in (said := Path(log.name).read_text()):
                assert process.poll() is None, said
                assert time.monotonic() < end, said
                time.sleep(0.2)
        return process


def port_of(address: str) -> str:
    """The port in an address."""
    return address.rpartition(":")[2]


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family, 30)
    process.wait(30)


@contextlib.contextmanager
def running_nodes(
    workers: int, *, head_cpus: int = 0, dashboard: bool = False, **environment: str
) -> Iterator[Nodes]:
    """A cluster for the length of a block. Nodes are started one after another."""
    with tempfile.TemporaryDirectory(prefix="rc", ignore_cleanup_errors=True) as folder:
        nodes = Nodes(folder, environment)
        try:
            nodes.start_head(head_cpus, dashboard=dashboard)
            for _ in range(workers):
                nodes.add()
            yield nodes
        finally:
            for each in (*nodes.workers, nodes.head):
                _kill(each)
