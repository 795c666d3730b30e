"""The Ray cluster a job runs on: joined where there is an address, else started on this machine and ended."""

import contextlib
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.data import DataContext
from ray.exceptions import RayError

from jobs.cluster.pools import Pool, plan_decoders, plan_pool
from jobs.cluster.versions import ray_wanted
from schemas.exceptions import RaylabelError
from schemas.spec import ComputeSpec, StorageMap
from workers import logs
from workers.storage.options import configure_storage, places

NO_PROGRESS_TIMEOUT_S = 4 * 3600
"""Without a bundle of units done. A large detector on a CPU may take an hour for one, and to find the image
that hangs a process takes up to fourteen times `workers.process.child.HANG_TIMEOUT_S`."""

REACHABLE_TIMEOUT_S = 10

TASK_RETRIES = 3
"""Of a task of our own whose process died."""

MIN_TASKS = 4
"""Of our own at once: they wait for storage more than they compute."""

RAY_DATAS_ADVICE = "\nFailed to apply UDF transform"
"""What Ray Data 2.60 appends to the message of every exception begins so."""

OWN_PATH = {"_client_job": True}
"""Keeps Ray from putting the working directory first on its workers' path: it may hold another `workers`.
This setting of JobConfig does nothing else for a job without a runtime environment (Ray 2.60)."""


@contextlib.contextmanager
def connect(address: str | None, *, verbose: bool = False) -> Iterator[Path]:
    """Ray for the length of a block; gives the folder of Ray's own logs.

    Args:
        address: of the cluster to join; None: RAY_ADDRESS, or a Ray of our own on this machine.
        verbose: leave log lines and Ray's own messages on stderr; otherwise they go to `raylabel-driver.log`
            next to Ray's other logs.

    Raises:
        RaylabelError: there is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    if address == "local":
        own = {"include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _stderr_kept_aside(verbose) as keep_in:
        try:
            _assert_reachable(address)
            ray.init(
                address=address,
                job_config=ray.job_config.JobConfig(**OWN_PATH),
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.WARNING,
                **own,
            )
        except Exception as error:  # Ray raises many kinds, a plain Exception among them
            raise RaylabelError(_why_not_joined(address, str(error))) from error
        folder = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
        keep_in(folder)
        logs.configure()
        try:
            _configure(DataContext.get_current())
            yield folder
        finally:
            ray.shutdown()
            logs.reset()  # stderr is the terminal again


def _why_not_joined(address: str, said: str) -> str:
    """What keeps this process out of a cluster, by what Ray says, and what to do."""
    found = re.findall(r"(?:Ray|Python): (\S+)", said)
    if said.startswith("Version mismatch") and len(found) == 4:
        ray_there, python_there, ray_here, python_here = found
        wanted = ray_wanted()
        if wanted.contains(ray_there, prereleases=True):
            advice = f"Run raylabel with Ray {ray_there} and Python {python_there}, or use `raylabel submit`"
        else:
            advice = f"This raylabel is for Ray {wanted}: start the cluster with such a Ray, or join another"
        return (
            f"the Ray cluster at {address} has Ray {ray_there} and Python {python_there}; here are Ray "
            f"{ray_here} and Python {python_here}, and whoever joins must have the same. {advice}"
        )
    return (
        f"cannot join a Ray cluster at {address}: {said}. Check --address and RAY_ADDRESS, or leave both out "
        "to run on this machine alone"
    )


def _assert_reachable(address: str) -> None:
    """Raises OSError at once where nothing listens; Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection(
            (host.rpartition("/")[2].strip("[]"), int(port)), REACHABLE_TIMEOUT_S
        ).close()


@contextlib.contextmanager
def _stderr_kept_aside(verbose: bool) -> Iterator[Callable[[Path], None]]:
    """Sends what this process prints on stderr, from Python and C++ alike, to a file once one is named."""
    if verbose:
        yield lambda _: None
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.close(silence)

    def keep_in(folder: Path) -> None:
        with (folder / "raylabel-driver.log").open("ab") as file:
            os.dup2(file.fileno(), 2)

    try:
        yield keep_in
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)


def _configure(context: DataContext) -> None:
    """The settings of Ray Data that held under kills and retries; docs/design.md has the measurements."""
    context.target_max_block_size = None  # one task, one block: several are mixed up when a task is retried
    context.max_errored_blocks = 0  # an errored block would be rows lost
    context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S
    context.execution_options.preserve_order = False
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # Ray Data's own wrapping loses the cause on its way here


def nodes() -> list[dict[str, float]]:
    """The resources of each node of the connected cluster, as Ray names them."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def pools_of(compute: ComputeSpec) -> tuple[Pool, Pool | None]:
    """The actors that label and those that decode for them; see `jobs.cluster.pools`.

    Raises:
        RaylabelError: the connected cluster has not what is asked for.
    """
    found = nodes()
    labelling = plan_pool(compute, found)
    return labelling, plan_decoders(compute, found, labelling)


def _reaching(reached: StorageMap, function: Callable[..., Any], *arguments: Any) -> Any:
    logs.configure()
    configure_storage(reached)
    return function(*arguments)


_task = ray.remote(num_cpus=0, max_retries=TASK_RETRIES)(_reaching)  # once: Ray exports each that is made


def start_task(function: Callable[..., Any], *arguments: Any) -> Any:
    """Starts a call of a function as a Ray task, which reaches files as this process does; its handle."""
    return _task.remote(places(), function, *arguments)


def map_tasks(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Calls a function once for each list of arguments, as Ray tasks; the results in order.

    No more at once than the cluster has CPUs, since each is a process.

    Raises:
        RaylabelError: what the function itself raised, soon after it did.
    """
    at_once = max(MIN_TASKS, int(ray.cluster_resources().get("CPU", 0)))
    begun: list[Any] = []
    running: list[Any] = []
    with own_exceptions():
        for each in arguments:
            if len(running) >= at_once:
                ended, running = ray.wait(running, num_returns=1)
                ray.get(ended)
            begun.append(start_task(function, *each))
            running.append(begun[-1])
        return list(ray.get(begun))


@contextlib.contextmanager
def own_exceptions() -> Iterator[None]:
    """Raises an exception of raylabel's that crossed Ray as it was raised, without Ray's wrapping."""
    try:
        yield
    except Exception as error:
        for cause in _causes(error):
            if isinstance(cause, RaylabelError) and not isinstance(cause, RayError):  # Ray's may be both
                cause.args = (str(cause).partition(RAY_DATAS_ADVICE)[0],)
                raise cause from None
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it wraps, outermost first."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = getattr(found, "cause", None) or found.__cause__
