"""The runs of a page: their indexes, opened, and how their photos are read."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from jobs.results.draw import class_colour
from jobs.results.show import photo_reader
from jobs.search.searcher import Searcher, stamp_of
from jobs.search.vocabulary import Term
from schemas.exceptions import RaylabelError, SpecError
from schemas.ledger import RUN, RunRecord
from schemas.spec import DecodeSpec
from workers.ledger.damage import damaged
from workers.process.streams import print_error
from workers.storage.options import configure_storage, configured_storage
from workers.storage.uris import clean_uri

LOOK_S = 5.0
"""Seconds from one look at the file of an index to the next."""


@dataclass(frozen=True)
class ServedRun:
    """A run of the page.

    Attributes:
        name: of it in addresses: the last part of its path, and a number where several have that.
        output: the run directory, without credentials.
        index: the file of its index as it was given; None: that beside the tables.
        searcher: its index.
        read: reads a photo by its URI in the tables, as the run did.
        decode: the run's bounds for a photo.
        terms: of the index, by their numbers in it.
        colours: of classes, by name, as CSS has them.
    """

    name: str
    output: str
    index: Path | None
    searcher: Searcher
    read: Callable[[str], bytes]
    decode: DecodeSpec
    terms: dict[int, Term] = field(repr=False)
    colours: dict[str, str] = field(repr=False)

    @property
    def key(self) -> tuple[str, object]:
        """Its name, and what tells its index from an older one."""
        return self.name, self.searcher.stamp

    @property
    def version(self) -> str:
        """Of its tables: it changes whenever they do."""
        return self.searcher.about.state[:12]

    @property
    def rows(self) -> int:
        """Of its manifest."""
        return self.searcher.run.record.plan.rows


class ServedRuns(dict[str, ServedRun]):
    """The runs of a page by name; an index that was made again takes the place of the older one.

    Args:
        ending: closes what is open in the end.
    """

    def __init__(self, ending: ExitStack) -> None:
        super().__init__()
        self._ending = ending
        self._older: dict[str, Searcher] = {}
        self._looked: dict[str, float] = {}
        self._refused: dict[str, object] = {}

    def current(self, name: str) -> ServedRun:
        """A run with its index as it is now, which is looked at once in `LOOK_S` seconds."""
        run, now = self[name], time.monotonic()
        if now - self._looked.get(name, -LOOK_S) >= LOOK_S:
            self._looked[name] = now
            stamp = stamp_of(run.searcher.file)
            if stamp not in (None, run.searcher.stamp, self._refused.get(name)):
                self._renew(run, stamp)
        return self[name]

    def _renew(self, run: ServedRun, stamp: object) -> None:
        """Opens the index anew; one that cannot be opened is told of once, and the older one stays."""
        try:
            searcher = self._ending.enter_context(Searcher(run.output, run.index))
        except RaylabelError as error:
            self._refused[run.name] = stamp
            print_error(f"note: {run.name} is shown as it was: {error}")
            return
        self[run.name] = _opened(run.name, run.output, run.index, searcher)
        # a request may still be reading the older one, none the one before that
        if before := self._older.get(run.name):
            before.close()
        self._older[run.name] = run.searcher


@contextmanager
def open_runs(outputs: Sequence[str], index: Path | None = None) -> Iterator[ServedRuns]:
    """Opens the indexes of runs for a `with` block, in which the storage options of this process are theirs.

    Args:
        outputs: the run directories.
        index: the file of the index, of one run; None: those beside the tables.

    Raises:
        SpecError: an index is named for several runs, or runs reach the same files in different ways.
        StorageError: there is no run, or no index that can be read.
        OutputConflictError: an index is older than the run's tables.
        DamagedFileError: a run's record is not one of this version.
    """
    if index and len(outputs) > 1:
        raise SpecError(f"--index names the index of one run; found {len(outputs)} runs")
    storage = dict(configured_storage())
    with ExitStack() as stack:
        runs = ServedRuns(stack)
        stack.callback(configure_storage, dict(storage))
        for output in outputs:
            searcher = stack.enter_context(Searcher(output, index))
            name = _name(output, runs)
            runs[name] = _opened(name, output, index, searcher)
            own = searcher.run.record.storage
            others = {url for run in runs.values() for url in run.searcher.run.record.storage}
            if wrong := sorted(
                url for url in own if url in others and storage.get(url, own[url]) != own[url]
            ):
                raise SpecError(
                    f"{clean_uri(output)} and a run before it reach {wrong[0]} by different storage options; "
                    "serve them by two commands"
                )
            storage |= own
            configure_storage(storage)
        yield runs


def _opened(name: str, output: str, index: Path | None, searcher: Searcher) -> ServedRun:
    record = searcher.run.record
    try:
        decode = DecodeSpec.model_validate(record.spec["decode"])
    except ValidationError:
        raise damaged(RunRecord, searcher.run.store, RUN, "its spec is not one of this version") from None
    terms = {term.id: term for term in searcher.vocabulary.terms}
    detector = record.models.get("detector")
    colours = {
        category: "#{:02x}{:02x}{:02x}".format(*class_colour(number))
        for number, category in reversed([*enumerate(detector.known_as if detector else ())])
        if category is not None
    }
    read = photo_reader(searcher.run)
    return ServedRun(name, clean_uri(output), index, searcher, read, decode, terms, colours)


def _name(output: str, taken: dict[str, ServedRun]) -> str:
    name = clean_uri(output).rstrip("/").rsplit("/", 1)[-1] or "run"
    numbers = (f"{name} {number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(other for other in numbers if other not in taken)
