"""`raylabel serve`: the search page of runs, until it is stopped."""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from jobs.results.status import unfinished
from jobs.serve.access import Access, is_loopback
from jobs.serve.app import Pages
from jobs.serve.photos import Photos
from jobs.serve.runs import open_runs
from schemas.exceptions import SpecError
from schemas.words import counted
from workers.process.streams import print_error

HOST, PORT = "127.0.0.1", 8899
"""Where the page is, by default: on this machine alone."""

WAITING = 512
"""Requests that are answered or wait at once; a further one is told to come later."""


@dataclass(frozen=True, slots=True)
class Site:
    """A server that listens and is not run yet.

    Attributes:
        address: to open, with the token if there is one.
        server: runs it.
        listener: its socket.
        notes: what to tell of the runs.
    """

    address: str
    server: uvicorn.Server
    listener: socket.socket
    notes: tuple[str, ...]

    def run(self) -> None:
        """Answers requests, until `server.should_exit` is set."""
        self.server.run(sockets=[self.listener])


class _Server(uvicorn.Server):
    """A server that leaves the signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing."""
        yield


def serve_runs(outputs: Sequence[str], host: str = HOST, port: int = PORT, index: Path | None = None) -> None:
    """Serves the page of runs, until a signal ends this process; raises as `site_of` does."""
    with site_of(outputs, host, port, index) as site:
        for note in site.notes:
            print_error(f"note: {note}")
        print(f"{counted(len(outputs), 'run')} at {site.address} (Ctrl-C ends it)", flush=True)
        site.run()


@contextmanager
def site_of(outputs: Sequence[str], host: str, port: int, index: Path | None = None) -> Iterator[Site]:
    """The page of runs, for a `with` block.

    Args:
        outputs: the run directories.
        host: an address of this machine, or its name.
        port: 0: any free one.
        index: the file of the index, of one run; None: those beside the tables.

    Raises:
        SpecError: nothing can listen there, or the runs do not go together.
        StorageError: there is no run, or no index that can be read.
        OutputConflictError: an index is older than the run's tables.
        DamagedFileError: a run's record is not one of this version.
    """
    with _listener(host, port) as listener, open_runs(outputs, index) as runs, Photos() as photos:
        port = listener.getsockname()[1]
        token = None if is_loopback(host) else secrets.token_urlsafe(24)
        app = Access(Pages(runs, photos).app(), host, port, token)
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=WAITING,
            timeout_graceful_shutdown=1,
        )
        notes = tuple(filter(None, (unfinished(run.searcher.run) for run in runs.values())))
        yield Site(_address(host, port, token), _Server(config), listener, notes)


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=WAITING)
    except (OSError, UnicodeError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, socket.gaierror):
            problem = os.strerror(error.errno)
        else:
            problem = "this machine has no such address"
        raise SpecError(
            f"nothing can listen at {host}, port {port}: {problem}. "
            "--port takes another number, 0 any free port; --host an address of this machine"
        ) from None


def _address(host: str, port: int, token: str | None) -> str:
    """What to open."""
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/{f'?token={token}' if token else ''}"
