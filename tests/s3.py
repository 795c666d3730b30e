"""Real S3 servers for the tests, from PyPI: SeaweedFS, and rclone, which ignores conditional writes."""

import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import s3fs

ACCESS_KEY, SECRET_KEY = "raylabel-tests", "raylabel-tests-secret"
READER = ("raylabel-reader", "raylabel-readers-secret")
"""The key and secret of somebody who may read and list, and write nothing."""


DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""urllib goes on through the proxy that a test of missing networks may have given it."""


@dataclass(frozen=True)
class S3Server:
    """Where the server is and who may use it."""

    endpoint: str
    key: str = ACCESS_KEY
    secret: str = SECRET_KEY

    @property
    def environment(self) -> dict[str, str]:
        """The usual AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def files(self) -> s3fs.S3FileSystem:
        """A client of its own, with nothing cached."""
        return s3fs.S3FileSystem(
            key=self.key,
            secret=self.secret,
            endpoint_url=self.endpoint,
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def new_bucket(self) -> str:
        """A bucket that nobody else uses."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.files().mkdir(name)
        return name


@contextlib.contextmanager
def running_server(
    key: str = ACCESS_KEY, secret: str = SECRET_KEY, more: Iterable[tuple[str, str]] = ()
) -> Iterator[S3Server]:
    """The server for the length of a block; its folder is gone afterwards.

    Ctrl-C in a terminal does not reach it: whoever uses it may want it to the end.

    Args:
        key: of somebody who may do everything.
        secret: theirs.
        more: keys with their secrets, of others who may do so.
    """
    with tempfile.TemporaryDirectory(prefix="weed") as folder:
        everything = ["Admin", "Read", "List", "Tagging", "Write"]
        users = [_identity(*each, everything) for each in ((key, secret), *more)]
        users += [_identity(*READER, ["Read", "List"])]
        config = Path(folder, "s3.json")
        config.write_text(json.dumps({"identities": users}))
        ports = dict(zip(("master", "volume", "filer", "s3", "admin"), free_ports(10)[::2], strict=True))
        grpc = dict(zip(ports, free_ports(5), strict=True))
        command = [str(Path(sys.executable).parent / "weed"), f"-logdir={folder}", "mini", f"-dir={folder}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={config}"]
        command += [f"-{name}.port={port}" for name, port in ports.items()]
        command += [f"-{name}.port.grpc={port}" for name, port in grpc.items()]
        command += [f"-{name}.localSocket={folder}/{name}.sock" for name in ("filer", "s3")]
        command += ["-volume.max=100000"]  # each bucket takes seven, of which little is on the disk
        command += ["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True
            )
        server = S3Server(f"http://127.0.0.1:{ports['s3']}", key, secret)
        try:
            _wait(server, process, Path(folder, "log"))
            yield server
        finally:
            process.terminate()
            process.wait(60)
            for (
                name,
                port,
            ) in grpc.items():  # no option leads these elsewhere, and a killed server leaves them
                Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)


def _identity(key: str, secret: str, actions: list[str]) -> dict[str, object]:
    """A user as SeaweedFS's configuration has it."""
    return {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}


@contextlib.contextmanager
def running_rclone() -> Iterator[S3Server]:
    """A server that overwrites where it was asked not to, for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="rclone") as folder:
        (port,) = free_ports(1)
        Path(folder, "data").mkdir()
        command = [str(Path(sys.executable).parent / "rclone"), "serve", "s3", f"--addr=127.0.0.1:{port}"]
        command += [f"--auth-key={ACCESS_KEY},{SECRET_KEY}", f"--config={folder}/rclone.conf"]
        command += [f"--cache-dir={folder}/cache", f"{folder}/data"]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        server = S3Server(f"http://127.0.0.1:{port}")
        try:
            _wait(server, process, Path(folder, "log"))
            yield server
        finally:
            process.terminate()
            process.wait(60)


def _wait(server: S3Server, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """Until a bucket can be made."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            try:
                DIRECTLY.open(server.endpoint, timeout=2).close()
            except urllib.error.HTTPError as answer:
                answer.close()
            server.new_bucket()
            return
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()[-2000:]}")


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, all different.

    Chosen by chance between those of Ray's workers and those that the kernel deals out: nobody else gets one
    before it is used.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < count:
            port, taken = (
                random.SystemRandom().randrange(20_000, 32_000),
                stack.enter_context(socket.socket()),
            )
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                ports.append(port)
    return ports
