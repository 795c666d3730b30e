"""What the tests of a process share: servers of all kinds of stores, one short folder for Ray."""

import contextlib
import dataclasses
import functools
import gc
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.s3 import S3Server, running_server
from tests.stores import AzureServer, GoogleServer, can_run_azure, running_azure, running_google

# Read by Ray when it is imported; without them it makes a token file in the home folder and leaves it there.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_USAGE_STATS_ENABLED="0")

# Threads of torch that wait for each other sleep: by spinning they take the cores from the tests beside them.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup what the tests start would ignore it

hypothesis.settings.register_profile("untimed", deadline=None)  # nothing fails on a slow day
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

SERVERS = {"s3", "google", "azure"}
"""Fixtures that start one; others name them by their parameters."""

NO_RAY = (
    "test_cluster.py::test_an_address_without_a_cluster",
    "test_inputs.py::test_check_and_plan",
    "test_object_storage.py::test_check_tries",
    "test_object_storage.py::test_whoever_may_not_read_the_photos_is_refused_at_the_start[check]",
    "test_object_storage.py::test_whoever_may_not_write_the_tables_is_refused_at_the_start[check]",
    "test_plan.py",
    "test_submit.py::test_an_address_where_no_dashboard",
    "test_submit.py::test_what_a_retry_does_not_take",
)
"""What the ids of those tests in `tests/integration` begin with that start no Ray."""

SHARE_A_RAY = (
    "test_inputs.py",
    "test_jobs.py",
    "test_long_jobs.py",
    "test_phones.py",
    "test_poison.py",
    "test_reference.py",
    "test_retry.py",
    "test_stores.py",
)
"""The files whose jobs run on the one Ray of their process, the fixture `ray_here`."""


SHARES_A_BROWSER = "jobs/serve/test_browser.py"
"""The file whose tests open pages in one browser."""


def starts_ray(nodeid: str) -> bool:
    """Whether a test needs a Ray, by its id, which is all that tests are dealt by."""
    folder, _, test = nodeid.partition("tests/integration/")
    return bool(test) and not folder and not test.startswith(NO_RAY)


class ByWhatTheyShare(LoadScopeScheduling):
    """One process runs all jobs that share a Ray; a file of jobs or pages of their own stays together."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if not starts_ray(nodeid):
            return file if file.endswith(SHARES_A_BROWSER) else nodeid
        return "a shared Ray" if file.endswith(SHARE_A_RAY) else file


_CONTROLLER = contextlib.ExitStack()
"""What the process that deals out the tests keeps running for those that run them."""


@functools.cache
def _servers(config: pytest.Config) -> dict[str, Any]:
    """The S3 server of all processes that run tests."""
    without = "not server" in config.option.markexpr
    return {} if without else {"s3": dataclasses.asdict(_CONTROLLER.enter_context(running_server()))}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """What a process that runs tests is told when it is started."""
    node.workerinput |= _servers(node.config)


def pytest_unconfigure() -> None:
    _CONTROLLER.close()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByWhatTheyShare:
    """How tests are dealt to the processes of `pytest -n 4`."""
    return ByWhatTheyShare(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what starts a Ray and what starts a server, for `make test-fast`."""
    for item in items:
        if starts_ray(item.nodeid):
            item.add_marker("ray")
        given = item.callspec.params.values() if hasattr(item, "callspec") else ()
        names = (name for name in given if isinstance(name, str))
        if isinstance(item, pytest.Function) and SERVERS & {*item.fixturenames, *names}:
            item.add_marker("server")


def pytest_collection_finish() -> None:
    """Hides what all tests share from the garbage collector, which else visits it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def photos() -> Path:
    """The seven demo photos."""
    return ROOT / "infra" / "demo" / "photos"


@pytest.fixture(scope="session", autouse=True)
def _ray_folder() -> Iterator[None]:
    """Ray's sessions, and what killed processes leave behind, go to a folder that is gone afterwards.

    Its name is short, as it holds sockets.
    """
    folder = tempfile.mkdtemp(prefix="rl")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TMPDIR", folder)
    patch.setenv("TMPDIR", folder)
    patch.delenv("RAY_ADDRESS", raising=False)
    yield
    patch.undo()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3(pytestconfig: pytest.Config) -> Iterator[S3Server]:
    """A real S3 server that the usual AWS variables lead to; one for all processes of `pytest -n 4`."""
    told: dict[str, Any] = getattr(pytestconfig, "workerinput", {})
    running = contextlib.nullcontext(S3Server(**told["s3"])) if "s3" in told else running_server()
    with running as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def google() -> Iterator[GoogleServer]:
    """A server that speaks as Google Cloud Storage does."""
    with running_google() as server:
        yield server


@pytest.fixture(scope="session")
def azure() -> Iterator[AzureServer]:
    """A server that speaks as Azure Blob Storage does."""
    if not can_run_azure():
        pytest.skip("Azurite is not installed; `make test` installs it where there is npm")
    with running_azure() as server:
        yield server
