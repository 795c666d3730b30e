"""`raylabel submit`: a job sent to a cluster, with the code that runs it.

What travels is one folder, Ray's `working_dir`: `job.yaml`, and raylabel's packages beside it. So nothing of
the spec, which may hold credentials, is in the command, the metadata or the environment, which are there for
all to see who see the cluster's dashboard or its processes.
"""

import json
import re
import shlex
import shutil
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
from schemas.exit_codes import CTRL_C, DEADLINE, TERMINATED
from schemas.spec import JobSpec, ModelSpec
from schemas.spec_file import override_spec
from schemas.submission import new_submission_id
from workers.storage.uris import absolute_uri, clean_uri

JOB_FILE = "job.yaml"

Command = Literal["run", "retry"]

_ABOUT = re.compile(r"raylabel-([^/]+)\.dist-info/METADATA")


@dataclass(frozen=True)
class SubmitOptions:
    """How a job is submitted, beside what it is.

    Attributes:
        address: of the cluster's dashboard; None: the variable `RAY_API_SERVER_ADDRESS`.
        name: of the job, to be seen there.
        wheel: of raylabel, to ship; None: ship the raylabel that runs here.
        ship: otherwise the cluster's own raylabel does the job.
        arguments: for the command there, after the job file.
        wait: follow the job to its end.
        as_json: tell a program instead of a person.
        command: of raylabel, for the cluster to run.
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
    """Submits a job, and says how to follow and stop it.

    Returns:
        An exit code: 0, or with `wait` the job's own.

    Raises:
        SpecError: the wheel is none of raylabel, or there is no address.
        ClusterError: the cluster is not reached, has another Ray than raylabel is for, or refuses the job.
    """
    client = JobsClient(options.address)
    spec, paths = absolute_paths(spec)
    for note in notes(spec, paths):
        print(f"note: {note}", file=sys.stderr)
    submission = new_submission_id()
    command = shlex.join(["python", "-m", "jobs.cli", options.command, JOB_FILE, *options.arguments])
    with tempfile.TemporaryDirectory(prefix="raylabel-") as folder:
        version = pack(Path(folder), spec, options)
        assert_fits(Path(folder), client.address, client.ray)
        seen = {"job_name": options.name, "output": clean_uri(spec.output), "raylabel": version}
        _send(client, submission, command, Path(folder), seen)
    if options.as_json:
        facts = {"submission": submission, "address": client.address, **seen}
        print(json.dumps({"event": "submitted", **facts}), flush=True)
    else:
        print(f"submission: {submission}\noutput: {seen['output']}\nraylabel: {version}")
        print(f"next: {follow_hint(client, submission)}", flush=True)
    return follow(client, submission, as_json=options.as_json) if options.wait else 0


def assert_fits(folder: Path, address: str, ray: str) -> None:
    """Refuses a cluster that has another Ray than what travels is for.

    Args:
        folder: what travels; where no raylabel does, any Ray is right.
        address: of the cluster.
        ray: the version that it has.

    Raises:
        ClusterError: with what it has and what is wanted.
    """
    for about in folder.glob("raylabel-*.dist-info"):
        wanted = ray_wanted(PathDistribution(about))
        if not wanted.contains(ray, prereleases=True):
            version = about.name.removeprefix("raylabel-").removesuffix(".dist-info")
            raise ClusterError(
                f"the cluster at {address} has Ray {ray}; raylabel {version}, which would be "
                f"shipped, is for Ray {wanted}. Start the cluster with such a Ray, or ship a raylabel that "
                "goes with the cluster's (--wheel FILE), or none if it has one (--no-ship)"
            )


def _send(client: JobsClient, submission: str, command: str, folder: Path, seen: dict[str, str]) -> None:
    """Submits a command in a folder; where no answer comes, says what that means."""
    try:
        client.submit(submission, command, folder, seen)
    except ClusterError as error:
        raise ClusterError(
            f"{error}. Whether {submission} was submitted is not known: `raylabel jobs` tells"
        ) from None


def follow(client: JobsClient, submission: str, *, as_json: bool = False) -> int:
    """Prints what a job prints until it is over, and how it ended. Ctrl-C leaves it running.

    Args:
        client: the cluster.
        submission: the job.
        as_json: print its JSON lines on stdout, and all others on stderr.

    Returns:
        The job's exit code, or that of Ctrl-C.
    """
    try:
        for text in client.follow(submission):
            for line in text.splitlines(keepends=True):
                print(line, end="", flush=True, file=sys.stderr if as_json and line[0] != "{" else sys.stdout)
        job = client.job(submission)
    except KeyboardInterrupt:
        print(f"\n{submission} goes on; {follow_hint(client, submission)}", file=sys.stderr)
        return CTRL_C
    if as_json:
        print(json.dumps({"event": "ended", "state": job.state, "exit_code": job.outcome}), flush=True)
    if job.state != "SUCCEEDED":
        print(f"raylabel: {end_message(job)}", file=sys.stderr)
    return job.outcome


def end_message(job: Submission) -> str:
    """How a job ended that did not succeed, and what to do."""
    again = "Submit the same job again, and it goes on from there"
    if job.state == "STOPPED":
        return f"{job.id} was stopped; what is committed stays. {again}"
    if job.exit_code in (CTRL_C, TERMINATED, DEADLINE):
        return f"{job.id} was ended with exit code {job.exit_code}; what is committed stays. {again}"
    if job.exit_code is None:
        return f"{job.id} failed, and Ray says: {job.message.strip()}\n{again}"
    return f"{job.id} failed with exit code {job.exit_code}; its last lines say why. {again}"


def follow_hint(client: JobsClient, submission: str) -> str:
    """How to follow and to stop a job."""
    where = f"{submission} --address {client.address}"
    return f"`raylabel logs --follow {where}` follows it, `raylabel stop {where}` stops it"


def absolute_paths(spec: JobSpec) -> tuple[JobSpec, dict[str, str]]:
    """A spec that means the same from any folder, and the paths on a disk that it names, by key."""
    uris = [absolute_uri(uri) for uri in spec.manifest.uris]
    places: dict[str, Any] = {
        "manifest.uri": uris if len(uris) > 1 else uris[0],
        "output": absolute_uri(spec.output),
    }
    if spec.manifest.base:
        places["manifest.base"] = absolute_uri(spec.manifest.base)
    for name, model in models_of(spec).items():
        for key in ("weights", "categories"):
            value = getattr(model, key)
            if isinstance(value, str) and ("/" in value or Path(value).is_file()):  # else it is a name
                places[f"{name}.{key}"] = absolute_uri(value)
    asked = spec.model_dump(mode="json", exclude_unset=True)
    named = {**places, "manifest.uri": ", ".join(filter(_is_path, uris))}
    return override_spec(asked, places, "the job"), {
        key: value for key, value in named.items() if _is_path(value)
    }


def notes(spec: JobSpec, paths: dict[str, str]) -> list[str]:
    """What of a job is not sent along, and so must be on the cluster already."""
    found = []
    if paths:
        named = ", ".join(f"{key} {path}" for key, path in paths.items())
        found.append(
            f"these are paths on a disk: {named}. The cluster's head and nodes look for them on theirs: use "
            "a disk that all of them share, or URLs such as s3://bucket/photos"
        )
    own = [model.model for model in models_of(spec).values() if ":" in model.model]
    if own:
        found.append(
            f"{', '.join(own)} must be importable on the cluster's head and nodes; it is not shipped"
        )
    return found


def models_of(spec: JobSpec) -> dict[str, ModelSpec]:
    """The models that a job asks for, by key."""
    models = {"classifier": spec.classifier, "detector": spec.detector}
    return {name: model for name, model in models.items() if model}


def pack(folder: Path, spec: JobSpec, options: SubmitOptions) -> str:
    """Puts what travels into an empty folder.

    Returns:
        The version of raylabel in it, or in words that it is the cluster's own.
    """
    if options.wheel:
        version = _unpack(options.wheel, folder)
    else:
        version = _copy(folder) if options.ship else "the cluster's own"
    asked = spec.model_dump(mode="json", exclude_unset=True)
    (folder / JOB_FILE).write_text(yaml.safe_dump(asked, sort_keys=False), encoding="utf-8")
    return version


def _copy(folder: Path) -> str:
    """Copies the raylabel that runs here as its wheel would unpack; its version."""
    for package in (jobs, schemas, workers):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    here = distribution("raylabel")
    about = folder / f"raylabel-{here.version}.dist-info" / "METADATA"  # by which it knows its version
    about.parent.mkdir()
    about.write_text(here.read_text("METADATA") or "", encoding="utf-8")
    return here.version


def _unpack(wheel: Path, folder: Path) -> str:
    """Unpacks a wheel; its version.

    Raises:
        SpecError: it cannot be read, or is none of raylabel.
    """
    try:
        with ZipFile(wheel) as file:
            names = file.namelist()
            about = [found[1] for found in map(_ABOUT.fullmatch, names) if found]
            if about and "jobs/cli/app.py" in names:
                file.extractall(folder)
                return about[0]
    except (OSError, BadZipFile) as error:
        raise SpecError(f"--wheel: cannot read {wheel}: {error}") from None
    raise SpecError(
        f"--wheel: {wheel} is no wheel of raylabel; `pip wheel --no-deps .` in its clone makes one"
    )


def _is_path(place: str) -> bool:
    return place.startswith(("/", "file:", "local:"))
