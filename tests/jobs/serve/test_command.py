import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from jobs.search.build import make_index
from jobs.serve.command import site_of
from jobs.serve.runs import open_runs
from schemas.exceptions import SpecError, StorageError
from tests.conftest import ROOT
from tests.integration.jobs_here import raylabel
from tests.jobs.exports.made_run import write_run
from tests.jobs.serve.conftest import serving
from workers.storage.options import options_for


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_an_address_and_a_signal_ends_it_with_a_sentence(
    run_of_photos: str, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "raylabel", "serve", run_of_photos, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = process.stdout.readline()
        (address,) = re.findall(r"1 run at (http://127\.0\.0\.1:\d+/) ", line)
        assert httpx.get(f"{address}photo/0", timeout=60).status_code == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    name, code = {signal.SIGINT: ("Ctrl-C", 130), signal.SIGTERM: ("SIGTERM", 143)}[number]
    assert (process.returncode, errors) == (code, f"raylabel: stopped by {name}\n")


def test_what_cannot_be_served_is_said_in_a_sentence(run_of_photos: str, tmp_path: Path) -> None:
    done = raylabel("serve", str(tmp_path / "nowhere"), "--port", "0")
    assert done.returncode == 5
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = raylabel("serve", run_of_photos, "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"raylabel: nothing can listen at 127.0.0.1, port {port}: Address already in use. --port takes"
    )


def test_a_host_that_is_none_of_this_machine_is_refused(run_of_photos: str) -> None:
    for host in ("203.0.113.1", "no such host", "x" * 300):
        with pytest.raises(SpecError, match="nothing can listen at"), site_of([run_of_photos], host, 0):
            pass


def test_without_an_index_it_is_said_how_to_make_one(own_run: str) -> None:
    Path(own_run, "search.duckdb").unlink()
    with (
        pytest.raises(StorageError, match=r"there is no index .*; make it with `raylabel index"),
        open_runs([own_run]),
    ):
        pass


def test_one_index_cannot_be_of_two_runs(run_of_photos: str, large_run: str) -> None:
    with (
        pytest.raises(SpecError, match="--index names the index of one run; found 2 runs"),
        open_runs([run_of_photos, large_run], Path("x")),
    ):
        pass


def test_runs_that_reach_one_store_in_two_ways_are_not_served_together(tmp_path: Path) -> None:
    outputs = []
    for port in (1, 2):
        output = write_run(tmp_path / str(port))
        record = Path(output, "run.json")
        values = json.loads(record.read_text())
        values["spec"]["storage"] = {"s3://": {"endpoint": f"http://127.0.0.1:{port}"}}
        record.write_text(json.dumps(values))
        make_index(output)
        outputs.append(output)
    with pytest.raises(SpecError, match="reach s3:// by different storage options"), open_runs(outputs):
        pass
    with open_runs([outputs[1]]):
        assert options_for("s3://bucket").endpoint == "http://127.0.0.1:2"
    assert options_for("s3://bucket").endpoint is None


def test_a_run_that_is_not_complete_is_told_of(tmp_path: Path) -> None:
    output = write_run(tmp_path, complete=False)
    make_index(output)
    with site_of([output], "127.0.0.1", 0) as site:
        note = "all shards are published, and what is left is to verify them"
        assert site.notes == (f"{output} is not complete: {note}",)


def test_runs_of_one_name_are_told_apart(run_of_photos: str, own_run: str) -> None:
    with open_runs([run_of_photos, own_run, run_of_photos + "/"]) as runs:
        assert list(runs) == ["run", "run 2", "run 3"]


def test_where_others_can_reach_it_a_token_is_asked_for(run_of_photos: str) -> None:
    with serving(run_of_photos, host="0.0.0.0") as address:
        url = httpx.URL(address)
        here = f"http://127.0.0.1:{url.port}"
        assert httpx.get(here, timeout=60).status_code == 403
        assert httpx.get(f"{here}/photo/0", timeout=60).status_code == 403
        with httpx.Client(base_url=here, timeout=60, follow_redirects=True) as client:
            page = client.get("/", params={"token": url.params["token"]})
            assert page.status_code == 200
            assert "token" not in str(page.url)
            assert client.get("/photo/0").status_code == 200
