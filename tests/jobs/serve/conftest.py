import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from jobs.search.build import make_index
from jobs.serve.command import site_of
from tests.benchmarks.large_run import write_large_run
from tests.jobs.exports.made_run import write_run

Serving = Callable[..., AbstractContextManager[str]]


@contextmanager
def serving(*outputs: str, host: str = "127.0.0.1") -> Iterator[str]:
    """The page of runs in a thread; yields what to open, without the slash at its end."""
    with site_of(outputs, host, 0) as site:
        thread = threading.Thread(target=site.run)
        thread.start()
        try:
            yield site.address.rstrip("/")
        finally:
            site.server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def run_of_photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of photos with odd names, one of which failed; its index. Tests only read it."""
    output = write_run(tmp_path_factory.mktemp("made run"))
    make_index(output)
    return output


@pytest.fixture
def own_run(tmp_path: Path) -> str:
    """The same, for a test that changes its photos."""
    output = write_run(tmp_path / "own")
    make_index(output)
    return output


@pytest.fixture(scope="session")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of 12,000 images, 120 of which failed; its photos are nowhere."""
    output = str(tmp_path_factory.mktemp("large"))
    write_large_run(output, 12_000, shard_rows=4000)
    make_index(output)
    return output


@pytest.fixture(scope="session")
def address(run_of_photos: str, large_run: str) -> Iterator[str]:
    """A server of both runs."""
    with serving(run_of_photos, large_run) as address:
        yield address


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def chromium() -> str:
    """Chromium's path."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium")
    return found
