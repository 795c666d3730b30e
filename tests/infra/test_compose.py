"""infra/compose.yaml against the Compose Specification, and its S3 server as it is started there."""

import os
import re
import shlex
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs

from tests.infra.manifests import COMPOSE, INFRA, compose
from tests.s3 import DIRECTLY, free_ports

RAY_NODES = ("head", "worker")
KEY, SECRET = "one-key", "its-secret"


def check_schema(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_compose_would_take_it() -> None:
    done = check_schema(COMPOSE)
    assert done.returncode == 0, done.stdout


def test_what_compose_would_refuse_is_found(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text(COMPOSE.read_text().replace("healthcheck:", "healthchek:"))
    assert "healthchek" in check_schema(broken).stdout


def test_ports_are_for_this_machine_alone_and_workers_can_be_many() -> None:
    services = compose()["services"]
    for service in services.values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not {"ports", "container_name", "hostname"} & services["worker"].keys()


@pytest.mark.parametrize("name", RAY_NODES)
def test_ray_asks_for_a_token_and_has_time_to_end(name: str) -> None:
    service: dict[str, Any] = compose()["services"][name]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    assert service["stop_grace_period"] == "60s"
    assert service["init"]
    assert ("--num-cpus=0" in service["command"]) == (name == "head")


def test_the_example_has_every_variable_and_no_secret() -> None:
    text = COMPOSE.read_text()
    variables = set(re.findall(r"\$\{(\w+)", text))
    required = set(re.findall(r"\$\{(\w+):\?", text))
    example = dict(re.findall(r"^(\w+)=(.*)$", (INFRA / ".env.example").read_text(), re.MULTILINE))
    assert example.keys() == variables
    assert {name for name, value in example.items() if not value} >= required


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The S3 server with the command line and the variables of compose.yaml, on ports that are free here."""
    service = compose()["services"]["s3"]
    ports = dict(zip(("master", "volume", "filer", "s3"), free_ports(8)[::2], strict=True))
    grpc = dict(zip(ports, free_ports(4), strict=True))
    command = [
        str(Path(sys.executable).parent / "weed"),
        f"-logdir={tmp_path}",
        *shlex.split(service["command"]),
    ]
    command += [f"-dir={tmp_path}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += [f"-{name}.port.grpc={port}" for name, port in grpc.items()]
    assert service["environment"].keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path
        )
    try:
        yield f"http://127.0.0.1:{ports['s3']}"
    finally:
        process.terminate()
        process.wait(60)


def wait_for(url: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            DIRECTLY.open(url, timeout=2).close()
        except urllib.error.URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def test_the_s3_server_is_healthy_has_the_bucket_and_knows_its_user_only(server: str) -> None:
    (url,) = (each for each in compose()["services"]["s3"]["healthcheck"]["test"] if "://" in each)
    wait_for(server + url.partition(":8333")[2])
    options: dict[str, Any] = {
        "endpoint_url": server,
        "skip_instance_cache": True,
        "use_listings_cache": False,
    }
    user = s3fs.S3FileSystem(key=KEY, secret=SECRET, **options)
    end = time.monotonic() + 60
    while not user.exists("raylabel") and time.monotonic() < end:
        time.sleep(0.1)
    user.pipe("raylabel/a", b"1")
    assert user.cat("raylabel/a") == b"1"
    for stranger in ({"anon": True}, {"key": KEY, "secret": "another"}):
        with pytest.raises(PermissionError):
            s3fs.S3FileSystem(**stranger, **options).cat("raylabel/a")
