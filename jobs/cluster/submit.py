"""`raylabel submit`: sends a job to a cluster, with the code that runs it.

One folder is shipped, Ray's `working_dir`: `job.yaml` and raylabel's packages. The spec may hold credentials,
so nothing of it is in the command, the metadata or the environment: anyone who can reach the cluster's
dashboard or its processes can read those.
"""

import json
import re
import shlex
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PathDistribution, distribution
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

import yaml

import jobs
import schemas
import workers
from jobs.cluster.jobs_api import JobsClient, Submission
from jobs.cluster.versions import ray_wanted
from schemas.exceptions import ClusterError, SpecError
from schemas.exit_codes import CTRL_C, DEADLINE, RAY_DIED, TERMINATED
from schemas.spec import JobSpec
from schemas.spec_file import override_spec
from schemas.submission import new_submission_id
from schemas.words import raylabel_command
from workers.places import places_of, with_absolute_places
from workers.printable import printable, printable_log
from workers.storage.uris import absolute_uri, clean_uri

JOB_FILE = "job.yaml"
"""The shipped job spec."""

Command = Literal["run", "retry"]

_METADATA = re.compile(r"raylabel-([^/]+)\.dist-info/METADATA")
"""The file of a wheel that names its version."""


@dataclass(frozen=True)
class SubmitOptions:
    """How a job is submitted.

    Attributes:
        address: of the cluster's dashboard; None: the environment variable `RAY_API_SERVER_ADDRESS`.
        name: of the job, for the dashboard.
        wheel: of raylabel, to ship; None: ship the running version.
        ship: whether raylabel is shipped; if not, the cluster has it installed.
        arguments: of the command on the cluster, after the job file.
        wait: follow the job until it ends.
        as_json: print JSON instead of lines.
        command: of raylabel, that the cluster runs.
    """

    address: str | None
    name: str
    wheel: Path | None
    ship: bool
    arguments: list[str]
    wait: bool
    as_json: bool
    command: Command = "run"


def submit_job(spec: JobSpec, options: SubmitOptions) -> int:
    """Submits a job, and prints how to follow and stop it.

    Returns:
        The exit code: 0, or with `wait` the job's.

    Raises:
        SpecError: the wheel is not raylabel's, or there is no address.
        ClusterError: the cluster is unreachable, has an unsupported version of Ray, or refuses the job.
    """
    client = JobsClient(options.address)
    spec, paths = absolute_paths(spec)
    for note in notes(spec, paths):
        print(printable(f"note: {note}"), file=sys.stderr)
    submission = new_submission_id()
    command = shlex.join(["python", "-m", "jobs.cli", options.command, JOB_FILE, *options.arguments])
    with tempfile.TemporaryDirectory(prefix="raylabel-") as folder:
        version = pack(Path(folder), spec, options)
        assert_fits(Path(folder), client.address, client.ray)
        metadata = {"job_name": options.name, "output": clean_uri(spec.output), "raylabel": version}
        _send(client, submission, command, Path(folder), metadata)
    if options.as_json:
        facts = {"submission": submission, "address": client.address, **metadata}
        print(json.dumps({"event": "submitted", **facts}), flush=True)
    else:
        print(printable(f"submission: {submission}\noutput: {metadata['output']}\nraylabel: {version}"))
        print(f"next: {follow_hint(client, submission)}", flush=True)
    return follow(client, submission, as_json=options.as_json) if options.wait else 0


def assert_fits(folder: Path, address: str, ray: str) -> None:
    """Refuses a cluster whose Ray the shipped raylabel does not support.

    Args:
        folder: what is shipped; without a raylabel in it, any Ray is accepted.
        address: of the cluster.
        ray: the cluster's version of Ray.

    Raises:
        ClusterError: the cluster's version is not one of those required.
    """
    for dist_info in folder.glob("raylabel-*.dist-info"):
        wanted = ray_wanted(PathDistribution(dist_info))
        if not wanted.contains(ray, prereleases=True):
            version = dist_info.name.removeprefix("raylabel-").removesuffix(".dist-info")
            raise ClusterError(
                f"the cluster at {address} has Ray {ray}; raylabel {version}, which would be "
                f"shipped, needs Ray {wanted}. Start the cluster with such a Ray, ship a raylabel for the "
                "cluster's Ray (--wheel FILE), or use the cluster's own (--no-ship)"
            )


def _send(client: JobsClient, submission: str, command: str, folder: Path, metadata: dict[str, str]) -> None:
    """Submits a command with its folder.

    Raises:
        ClusterError: with the id, as without an answer the job may have been submitted all the same.
    """
    try:
        client.submit(submission, command, folder, metadata)
    except ClusterError as error:
        raise ClusterError(
            f"{error}. {submission} may have been submitted: check with `raylabel jobs`"
        ) from None


def follow(client: JobsClient, submission: str, *, as_json: bool = False) -> int:
    """Prints a job's output until it ends, and how it ended. Ctrl-C leaves the job running.

    Args:
        client: the cluster.
        submission: the job.
        as_json: print its JSON lines on stdout, and all others on stderr.

    Returns:
        The exit code: the job's, or 130 after Ctrl-C.
    """
    # the command line's handler would end this at once, and so would the thread that hears signals beside it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    try:
        for text in client.follow(submission):
            for line in printable_log(text).splitlines(keepends=True):
                print(line, end="", flush=True, file=sys.stderr if as_json and line[0] != "{" else sys.stdout)
        job = client.job(submission)
    except KeyboardInterrupt:
        print(f"\n{submission} is still running; {follow_hint(client, submission)}", file=sys.stderr)
        return CTRL_C
    if as_json:
        print(json.dumps({"event": "ended", "state": job.state, "exit_code": job.outcome}), flush=True)
    if job.state != "SUCCEEDED":
        print(printable(f"raylabel: {end_message(job)}"), file=sys.stderr)
    return job.outcome


def end_message(job: Submission) -> str:
    """How a job ended that did not succeed, and what to do."""
    advice = "Submit the same job again to resume"
    if job.state == "STOPPED":
        return f"{job.id} was stopped; committed work stays. {advice}"
    if job.exit_code in (CTRL_C, TERMINATED, DEADLINE, RAY_DIED):
        return f"{job.id} was stopped with exit code {job.exit_code}; committed work stays. {advice}"
    if job.exit_code is None:
        return f"{job.id} failed with this message of Ray: {job.message.strip()}\n{advice}"
    return f"{job.id} failed with exit code {job.exit_code}; its last log lines say why. {advice}"


def follow_hint(client: JobsClient, submission: str) -> str:
    """The commands that follow and stop a job, in a sentence."""
    job = (submission, "--address", client.address)
    follow_it, stop_it = raylabel_command("logs", "--follow", *job), raylabel_command("stop", *job)
    return f"{follow_it} follows it, {stop_it} stops it"


def absolute_paths(spec: JobSpec) -> tuple[JobSpec, dict[str, str]]:
    """A spec that means the same from any folder, and the local paths in it, by key."""
    uris = [absolute_uri(uri) for uri in spec.manifest.uris]
    overrides: dict[str, Any] = {
        "manifest.uri": uris if len(uris) > 1 else uris[0],
        "output": absolute_uri(spec.output),
    }
    if spec.manifest.base:
        overrides["manifest.base"] = absolute_uri(spec.manifest.base)
    spec = with_absolute_places(spec)
    shown = {**overrides, **places_of(spec), "manifest.uri": ", ".join(filter(_is_path, uris))}
    paths = {key: value for key, value in shown.items() if _is_path(value)}
    return override_spec(spec.model_dump(mode="json", exclude_unset=True), overrides, "the job"), paths


def notes(spec: JobSpec, paths: dict[str, str]) -> list[str]:
    """Sentences about what is not shipped, and so must be on the cluster already."""
    sentences = []
    if paths:
        shown = ", ".join(f"{key} {path}" for key, path in paths.items())
        sentences.append(
            f"these are local paths: {shown}. The cluster's head and nodes look for them on their own disks: "
            "use a disk that all of them share, or URLs such as s3://bucket/photos"
        )
    own = [model.model for model in spec.models.values() if model.is_factory]
    if own:
        sentences.append(
            f"{', '.join(own)} must be importable on the cluster's head and nodes: it is not shipped"
        )
    return sentences


def pack(folder: Path, spec: JobSpec, options: SubmitOptions) -> str:
    """Writes what is shipped into an empty folder.

    Returns:
        The version of raylabel in it, or "the cluster's own".
    """
    if options.wheel:
        version = _unpack(options.wheel, folder)
    else:
        version = _copy(folder) if options.ship else "the cluster's own"
    values = spec.model_dump(mode="json", exclude_unset=True)
    (folder / JOB_FILE).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return version


def _copy(folder: Path) -> str:
    """Copies the running raylabel as its wheel would unpack; returns its version."""
    for package in (jobs, schemas, workers):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    running = distribution("raylabel")
    metadata = folder / f"raylabel-{running.version}.dist-info" / "METADATA"  # holds the version
    metadata.parent.mkdir()
    metadata.write_text(running.read_text("METADATA") or "", encoding="utf-8")
    return running.version


def _unpack(wheel: Path, folder: Path) -> str:
    """Unpacks a wheel; returns its version.

    Raises:
        SpecError: it cannot be read, or is not raylabel's.
    """
    try:
        with ZipFile(wheel) as file:
            names = file.namelist()
            versions = [match[1] for match in map(_METADATA.fullmatch, names) if match]
            if versions and "jobs/cli/app.py" in names:
                file.extractall(folder)
                return versions[0]
    except (OSError, BadZipFile) as error:
        raise SpecError(f"--wheel: cannot read {wheel}: {error}") from None
    raise SpecError(
        f"--wheel: {wheel} is not a wheel of raylabel; `pip wheel --no-deps .` in its clone makes one"
    )


def _is_path(uri: str) -> bool:
    return uri.startswith(("/", "file:", "local:"))
