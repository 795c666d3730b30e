"""Labels images from a notebook or a program, and reads what was found."""

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from raylabel.child import run_command
from raylabel.errors import SpecError
from raylabel.own import own_modules
from raylabel.progress import Progress, shown

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

Job = str | os.PathLike[str] | Mapping[str, Any]
"""A job spec file, a run directory, or the keys and values of a job spec."""

Storage = dict[str, dict[str, Any]]
"""A spec's `storage`: how the files below each URL are reached."""

DICT = "/dev/stdin"
"""The job spec file of a job that is given by its keys and values."""


def label(
    job: Job,
    *,
    progress: Progress = True,
    restart: bool = False,
    address: str | None = None,
    stop_after: str | None = None,
) -> "Run":
    """Labels the images of a job, as `raylabel run` does, and returns when all are done.

    The job runs in a child process, which ends with this one. Called again after a stop, it resumes; the
    images of a complete run are not labelled again.

    Args:
        job: a job spec file, the directory of a run that was begun, or a dict with the keys of a job spec.
            Relative paths in it start from the working directory.
        progress: True: show one line that changes, in the notebook's cell or on stderr. None or False: show
            nothing. A function: call it with each event, a dict that docs/json.md describes.
        restart: delete the run that the output holds, and start over.
        address: of the Ray cluster to join; None: that of RAY_ADDRESS, or else a Ray of its own.
        stop_after: stop after this duration ("90s", "1h30m").

    Returns:
        The run, which is complete.

    Raises:
        RaylabelError: the job cannot run, or failed: an exception of the kind, such as SpecError, with the
            message of the command.
        StoppedError: it was stopped: by the deadline, a signal, or the end of Ray. The same call resumes it.
        KeyboardInterrupt: it was stopped by Ctrl-C or the notebook's stop button, and its processes have
            ended. The same call resumes it.
    """
    if not isinstance(job, str | os.PathLike | Mapping):
        raise TypeError(f"job is a file, a run directory or a dict, found {type(job).__name__}")
    output, storage = _spec_of(job)
    named = DICT if isinstance(job, Mapping) else os.fspath(job)
    arguments = ["run", named, "--json"]
    arguments += ["--restart"] if restart else []
    arguments += ["--address", address] if address else []
    arguments += ["--stop-after", stop_after] if stop_after else []
    with shown(progress) as on_event:
        run_command(arguments, _yaml(job) if isinstance(job, Mapping) else "", on_event)
    return _open(output, storage)


def open_run(output: Job) -> "Run":
    """Opens a run, complete or not, to read what it has found so far.

    Args:
        output: the run directory: a path, or a URL of any store that raylabel writes to. Or its job spec,
            which says how the directory is reached: a file (.yaml), or a dict.

    Raises:
        StorageError: there is no run, or it cannot be read.
        SpecError: the job spec is wrong.
        DamagedFileError: the run's own record is damaged.
    """
    if isinstance(output, Mapping) or os.fspath(output).endswith((".yaml", ".yml")):
        return _open(*_spec_of(output))
    return _open(os.fspath(output), {})


@dataclass(frozen=True, repr=False, eq=False)
class Run:
    """A run: its tables, its summary and its status, read anew at each call. `open_run` makes one.

    Tables are Arrow datasets (`pyarrow.dataset.Dataset`) over the files that are published when they are
    asked for; `.to_table()` reads one, `.to_table(columns=…, filter=…)` a part. docs/tables.md has the
    columns. A method raises StorageError where a file cannot be read, DamagedFileError where one is damaged.

    Attributes:
        output: the run directory as it was given, without credentials.
    """

    output: str
    _url: str
    _storage: Storage
    _facts: str

    def __repr__(self) -> str:
        return f"<raylabel.Run {self.output!r}: {self._facts}>"

    def labels(self) -> "ds.Dataset":
        """The labels table: one row for each labelled image."""
        return self._table("labels")

    def boxes(self) -> "ds.Dataset":
        """The boxes table: one row for each object, its box in half-open pixels of the upright image."""
        return self._table("boxes")

    def errors(self) -> "ds.Dataset":
        """The errors table: one row for each image that failed."""
        return self._table("errors")

    def tags(self) -> "ds.Dataset":
        """The tags table: one row for each tag of an image, or of an object in it (`object_index`).

        Raises:
            SpecError: the job was not asked for tags; the message says how it is.
        """
        return self._table("tags")

    def embeddings(self) -> "ds.Dataset":
        """The embeddings table: one row with a vector for each image.

        Raises:
            SpecError: the job was not asked for embeddings; the message says how it is.
        """
        return self._table("embeddings")

    def object_embeddings(self) -> "ds.Dataset":
        """The table of objects' embeddings: one row with a vector for each object.

        Raises:
            SpecError: the job was not asked for them; the message says how it is.
        """
        return self._table("object_embeddings")

    def sql(self, query: str) -> "pa.Table":
        """The result of a query over the run's tables, as an Arrow table: `.to_pandas()` has it as a frame.

        Args:
            query: one SELECT in DuckDB's SQL over the views `labels`, `boxes`, `errors`, `objects`, and where
                the run has them `tags`, `embeddings` and `object_embeddings`; docs/analytics.md has examples.

        Raises:
            SpecError: the query cannot be answered; the message says where it is wrong.
        """
        with _reaching(self._storage):
            from jobs.results.sql import Database

            with Database({"": self._url}) as database:
                return database.table(query)

    def summary(self) -> dict[str, Any]:
        """What was found, counted.

        Returns:
            Numbers of images and objects ("labelled", "failed", "objects"), the most frequent "labels" and
            "classes" and all kinds of "errors" (a dict for each), and two histograms: "scores" of labels in
            20 bins from 0 to 1, and "objects_per_image" from 0 to 10 or more.
        """
        with _reaching(self._storage):
            from jobs.results.summary import summarize

            found = dataclasses.asdict(summarize(self._url, limit=0))
        return {name: value for name, value in found.items() if name not in ("images", "failures")}

    def status(self) -> dict[str, Any]:
        """The run's state, progress and next step: what `raylabel status --json` prints, see docs/json.md."""
        with _reaching(self._storage):
            from jobs.results.status import find_status

            status: dict[str, Any] = json.loads(find_status(self._url).to_json())
        return status

    def draw(self, folder: str | os.PathLike[str], limit: int | None = 20) -> list[Path]:
        """Draws the photos with their boxes and labels, and `contact-sheet.jpg`, an overview, into a folder.

        The photos are read again. Of one that has changed or is gone there is a warning.

        Args:
            folder: for the pictures; made where it is missing. What was drawn there before is replaced;
                one that holds other files is refused.
            limit: number of images, in manifest order; None: all.

        Returns:
            The pictures, JPEG files named by manifest row and photo, without the overview.
        """
        with _reaching(self._storage):
            from jobs.results.images import Selection
            from jobs.results.show import draw_photos, not_drawn
            from jobs.results.sql import Database

            with Database({"": self._url}) as database:
                drawn = draw_photos(database, Selection(limit=limit), Path(folder))
            notes = not_drawn(drawn)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return drawn.pictures

    def _table(self, name: str) -> "ds.Dataset":
        with _reaching(self._storage):
            from jobs.results.datasets import open_table

            return open_table(self._url, name)


@contextlib.contextmanager
def _reaching(storage: Storage) -> Iterator[None]:
    """Takes raylabel's own modules for the length of a block, with the storage options of a job."""
    with own_modules():
        from schemas.spec import StorageOptions
        from workers.storage.options import configure_storage

        configure_storage({url: StorageOptions.model_validate(options) for url, options in storage.items()})
        yield


def _open(output: str, storage: Storage) -> Run:
    """The run in a directory, reached as its job spec says, or else as its record does."""
    with _reaching(storage):
        from schemas.words import counted
        from workers.ledger.runs import find_run
        from workers.storage.uris import clean_uri

        directory = find_run(output)
        record = directory.record
        models = [f"{name} {model.info.name}" for name, model in record.models.items()]
        facts = ", ".join([counted(record.plan.rows, "image"), *models])
        storage = storage or {url: options.model_dump() for url, options in record.storage.items()}
        return Run(clean_uri(output), directory.store.url, storage, facts)


def _spec_of(job: Job) -> tuple[str, Storage]:
    """The output of a job, and how it is reached.

    Raises:
        SpecError: the spec is wrong, or the values of a dict are none that a spec can have.
        StorageError: the run directory cannot be read.
    """
    with _reaching({}):
        from jobs.prepare.begun import spec_of
        from schemas.spec_file import build_spec

        spec = build_spec(_plain(job), "the job") if isinstance(job, Mapping) else spec_of(os.fspath(job), {})
        return spec.output, {url: options.model_dump() for url, options in spec.reached.items()}


def _yaml(job: Mapping[str, Any]) -> str:
    """A job spec as YAML.

    Raises:
        SpecError: it has a value that YAML does not.
    """
    try:
        return yaml.safe_dump(_plain(job), sort_keys=False)
    except yaml.YAMLError as error:
        *_, value = error.args
        raise SpecError(
            f"the job has a value of type {type(value).__name__}; allowed: text, numbers, True, False, None, "
            "paths, lists and dicts"
        ) from None


def _plain(value: Any) -> Any:
    """A value of a job spec as YAML would give it: mappings become dicts, sequences lists, paths texts.

    The key True is `on`: so `yaml.safe_load` reads it, and no section has one that is called true.
    """
    if isinstance(value, Mapping):
        return {"on" if key is True else key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
