"""The Ray cluster a job runs on: joined by its address, or else started on this machine and ended."""

import contextlib
import fcntl
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import ray
from ray._private import services
from ray.data import DataContext
from ray.exceptions import RayError

from jobs.cluster.own import own_options
from jobs.cluster.pools import Pool, plan_decoders, plan_pool
from jobs.cluster.versions import ray_wanted
from jobs.cluster.watch import answers, watching_start
from schemas.exceptions import ClusterError, RaylabelError, SpecError
from schemas.spec import ComputeSpec, StorageMap
from workers import logs
from workers.process.limits import low_limits
from workers.storage.options import configure_storage, configured_storage
from workers.storage.uris import clean_uri

REACHABLE_TIMEOUT_S = 10
"""Seconds to wait for a connection to the cluster's address."""

ANSWER_TIMEOUT_S = 20
"""Seconds to wait, once connected, for something there that speaks as Ray does."""

START_WAIT_S = 120
"""Seconds to wait at most while others start a Ray on this machine; one that hangs must not stop all."""

TASK_RETRIES = 3
"""Times that one of raylabel's own tasks is tried again after its process died."""

MIN_TASKS = 4
"""Own tasks at once, at least: they wait for storage more than they compute."""

RAY_DATA_ADVICE = "\nFailed to apply UDF transform"
"""Start of what Ray Data 2.60 appends to the message of every exception."""

OWN_PATH = {"_client_job": True}
"""Keeps Ray from putting the working directory first on its workers' path: it may hold another `workers`.
This setting of JobConfig does nothing else for a job without a runtime environment (Ray 2.60)."""


@contextlib.contextmanager
def connect(
    address: str | None, *, verbose: bool = False, on_death: Callable[[str], None] | None = None
) -> Iterator[Path]:
    """Connects to Ray for the length of a block; yields the folder of Ray's own logs.

    Args:
        address: of the cluster to join; None: RAY_ADDRESS, or a new Ray on this machine.
        verbose: leave log lines and Ray's own messages on stderr; otherwise they go to `raylabel-driver.log`
            next to Ray's other logs.
        on_death: see `jobs.cluster.watch`; for while Ray is started. None: nothing is watched.

    Raises:
        SpecError: the address is of another kind.
        ClusterError: there is no cluster at the address, or none can be started here.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _assert_joinable(address)
    with _redirect_stderr(verbose) as redirect_to:
        try:
            assert_reachable(address)
            options: dict[str, Any] = {}
            if address == "local":
                options = own_options()
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            one_start = one_start_at_a_time() if address == "local" else contextlib.nullcontext()
            watched = watching_start(on_death) if on_death else contextlib.nullcontext()
            with one_start, _own_sigterm_handler(), _awake_while_waiting(), watched:
                ray.init(
                    address=address,
                    job_config=ray.job_config.JobConfig(**OWN_PATH),
                    log_to_driver=verbose,
                    logging_level=logging.INFO if verbose else logging.WARNING,
                    **options,
                )
        except RaylabelError:
            raise
        except Exception as error:  # Ray raises many kinds, a plain Exception among them
            raise ClusterError(_join_error(address, str(error))) from error
        folder = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
        redirect_to(folder)
        # Ray prints its errors, coloured, on stdout whatever log_to_driver says; they are in its logs as well
        ray._private.worker._worker_logs_enabled = verbose
        logs.configure()
        try:
            _configure(DataContext.get_current())
            yield folder
        finally:
            ray.shutdown()
            logs.reset()  # stderr is the terminal again


@contextlib.contextmanager
def one_start_at_a_time() -> Iterator[None]:
    """Waits while another process of this machine starts a Ray with the same installation, within bounds.

    A start that takes more than 30 s fails (Ray 2.60); of five at once on two busy cores all five did.
    """
    end = time.monotonic() + START_WAIT_S
    with Path(ray.__file__).open("rb") as file:
        while not _locked(file) and time.monotonic() < end:
            time.sleep(0.1)
        yield


def _locked(file: IO[bytes]) -> bool:
    """Whether a file is now this process's, or is on a file system that knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _join_error(address: str, reason: str) -> str:
    """Why this process cannot join a cluster, from Ray's own message, and what to do."""
    versions = re.findall(r"(?:Ray|Python): (\S+)", reason)
    if reason.startswith("Version mismatch") and len(versions) == 4:
        ray_there, python_there, ray_here, python_here = versions
        wanted = ray_wanted()
        if wanted.contains(ray_there, prereleases=True):
            advice = f"Run raylabel with Ray {ray_there} and Python {python_there}, or use `raylabel submit`"
        else:
            advice = f"This raylabel needs Ray {wanted}: start the cluster with such a Ray, or join another"
        return (
            f"the Ray cluster at {address} has Ray {ray_there} and Python {python_there}; this machine "
            f"has Ray {ray_here} and Python {python_here}, and to join they must be the same. {advice}"
        )
    if address == "local":
        return f"cannot start a Ray on this machine: {reason.rstrip('.')}{low_limits()}"
    return (
        f"cannot join a Ray cluster at {address}: {reason.rstrip('.')}. Check --address and RAY_ADDRESS, or "
        "omit both to run on this machine alone"
    )


def _assert_joinable(address: str) -> None:
    """Refuses an address of another kind: of a dashboard, or of Ray's client.

    Raises:
        SpecError: naming what is allowed.
    """
    scheme, separator, rest = clean_uri(address).partition("://")
    if not separator:
        return
    server = rest.partition("/")[0]
    host = server.rpartition(":")[0] or server or "HEAD"
    kind = {
        "http": "the address of a dashboard",
        "https": "the address of a dashboard",
        "ray": "an address of Ray's client, which cannot run Ray Data's actors",
    }.get(scheme.lower(), "of no kind that is known here")
    raise SpecError(
        f"--address or RAY_ADDRESS: found {clean_uri(address)}, {kind}; allowed: {host}:6379 (the port of "
        f"`ray start` on the head), auto on a node of the cluster, or local. From elsewhere use "
        f"`raylabel submit --address http://{host}:8265`"
    )


def assert_reachable(address: str) -> None:
    """Refuses an address where no Ray answers, within half a minute; Ray itself tries for minutes.

    Args:
        address: as Ray takes it; "auto" is the Ray that runs on this machine.

    Raises:
        OSError: nothing listens there, or what does is silent.
    """
    address = (services.canonicalize_bootstrap_address(address) or "") if address == "auto" else address
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return
    socket.create_connection((host.strip("[]"), int(port)), REACHABLE_TIMEOUT_S).close()
    if not answers(address, ANSWER_TIMEOUT_S):
        raise TimeoutError(
            f"it accepts connections, but nothing there answers as Ray does in {ANSWER_TIMEOUT_S} s"
        )


@contextlib.contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Keeps this process's SIGTERM handler: Ray would set one that ends the process with 15 and no word."""
    set_handler = ray._private.utils.set_sigterm_handler
    ray._private.utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = set_handler


@contextlib.contextmanager
def _awake_while_waiting() -> Iterator[None]:
    """Lets this process notice signals, and the death of a GCS that starts, while Ray waits for its port.

    Ray's own wait (2.60) is one call that holds Python's lock for up to half a minute.
    """
    whole_wait = ray._private.node.wait_for_persisted_port

    def wait_in_slices(*where: Any, timeout_ms: int) -> int:
        end = time.monotonic() + timeout_ms / 1000
        while True:
            try:
                port: int = whole_wait(*where, timeout_ms=1, poll_interval_ms=1)
                return port
            except RuntimeError:  # it is not there yet
                if time.monotonic() > end:
                    raise
            time.sleep(0.02)

    ray._private.node.wait_for_persisted_port = wait_in_slices
    try:
        yield
    finally:
        ray._private.node.wait_for_persisted_port = whole_wait


@contextlib.contextmanager
def _redirect_stderr(verbose: bool) -> Iterator[Callable[[Path], None]]:
    """Redirects stderr, of Python and C++ alike, to a file in the folder that its result is called with.

    Until then the messages are dropped: Ray names its log folder only once it is connected.
    """
    if verbose:
        yield lambda _: None
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)

    def redirect_to(folder: Path) -> None:
        with (folder / "raylabel-driver.log").open("ab") as file:
            os.dup2(file.fileno(), 2)

    try:
        yield redirect_to
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)


def _configure(context: DataContext) -> None:
    """Sets what held under kills and retries; docs/notes/ray.md has the measurements."""
    context.target_max_block_size = None  # one task, one block: a retried task mixes several up
    context.max_errored_blocks = 0  # an errored block would be rows lost
    context.execution_options.preserve_order = False
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # Ray Data's wrapping loses the cause


def end_without_progress(seconds: float) -> None:
    """From now on ends what Ray Data computes when so many seconds pass without a finished bundle."""
    DataContext.get_current().execution_no_progress_timeout_s = seconds


def nodes() -> list[dict[str, float]]:
    """The resources of each node of the connected cluster, as Ray names them."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def pools_of(compute: ComputeSpec) -> tuple[Pool, Pool | None]:
    """The actors that label and those that decode for them; see `jobs.cluster.pools`.

    Raises:
        ClusterError: the connected cluster lacks what is asked for.
    """
    resources = nodes()
    labelling = plan_pool(compute, resources)
    return labelling, plan_decoders(compute, resources, labelling)


def _with_storage(storage: StorageMap, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function with the driver's storage options."""
    logs.configure()
    configure_storage(storage)
    return function(*arguments)


_task = ray.remote(num_cpus=0, max_retries=TASK_RETRIES)(_with_storage)  # once: Ray exports each that is made


def start_task(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function as a Ray task with this process's storage options; returns the task's ObjectRef."""
    return _task.remote(configured_storage(), function, *arguments)


def map_tasks(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Calls a function as a Ray task for each tuple of arguments; returns the results in order.

    At most as many at once as the cluster has CPUs, since each is a process.

    Raises:
        RaylabelError: the function raised it in a task; the first one ends the call.
    """
    at_once = max(MIN_TASKS, int(ray.cluster_resources().get("CPU", 0)))
    tasks: list[Any] = []
    running: list[Any] = []
    with own_exceptions():
        for call in arguments:
            if len(running) >= at_once:
                done, running = ray.wait(running, num_returns=1)
                ray.get(done)  # raises at once what a task raised
            tasks.append(start_task(function, *call))
            running.append(tasks[-1])
        return list(ray.get(tasks))


@contextlib.contextmanager
def own_exceptions() -> Iterator[None]:
    """Unwraps raylabel's exceptions: raises them as they were raised in a Ray process."""
    try:
        yield
    except Exception as error:
        for cause in _causes(error):
            if isinstance(cause, RaylabelError) and not isinstance(cause, RayError):  # Ray's may be both
                cause.args = (str(cause).partition(RAY_DATA_ADVICE)[0],)
                raise cause from None
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it wraps, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = getattr(cause, "cause", None) or cause.__cause__
