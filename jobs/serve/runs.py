"""The runs of a page: their indexes, opened, and how their photos are read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from jobs.results.draw import class_colour
from jobs.results.show import photo_reader
from jobs.search.searcher import Searcher
from jobs.search.vocabulary import Term
from schemas.exceptions import SpecError
from schemas.ledger import RUN, RunRecord
from schemas.spec import DecodeSpec
from workers.ledger.damage import damaged
from workers.storage.options import configure_storage, configured_storage
from workers.storage.uris import clean_uri


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
    def version(self) -> str:
        """Of its tables: it changes whenever they do."""
        return self.searcher.about.state[:12]

    @property
    def rows(self) -> int:
        """Of its manifest."""
        return self.searcher.run.record.plan.rows


@contextmanager
def open_runs(outputs: Sequence[str], index: Path | None = None) -> Iterator[dict[str, ServedRun]]:
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
    runs: dict[str, ServedRun] = {}
    storage = dict(configured_storage())
    with ExitStack() as stack:
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
        for number, category in enumerate(detector.categories if detector else ())
    }
    read = photo_reader(searcher.run)
    return ServedRun(name, clean_uri(output), index, searcher, read, decode, terms, colours)


def _name(output: str, taken: dict[str, ServedRun]) -> str:
    name = clean_uri(output).rstrip("/").rsplit("/", 1)[-1] or "run"
    numbers = (f"{name} {number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(other for other in numbers if other not in taken)
