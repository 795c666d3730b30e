"""What the report of a run is made of: its records, its numbers, its pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from jobs.report.examples import Example, Gallery, choose, read_chosen
from jobs.report.facts import Facts, find_facts
from jobs.report.history import History, find_history
from jobs.report.pictures import PATIENCE_S, Picture, Taken, take_pictures
from jobs.results.images import ImageRow
from jobs.results.show import photo_reader
from jobs.results.sql import Database
from jobs.results.status import unfinished
from schemas.exceptions import RaylabelError
from schemas.ledger import RunRecord
from workers.ledger.directory import RunDirectory
from workers.storage.options import configure_storage, configured_storage
from workers.storage.uris import clean_uri


@dataclass(frozen=True, slots=True)
class Found:
    """What a page is made of: the run, its numbers, its pictures.

    Attributes:
        output: the run directory, without credentials.
        record: its run.json.
        unfinished: what to tell of a run that is not complete; None of one that is.
        now: when this was found; UTC.
        facts: its numbers.
        history: its attempts.
        galleries: the images that are shown.
        images: these images, by manifest_index.
        taken: their pictures.
        notes: name and value of what the run's files do not tell.
    """

    output: str
    record: RunRecord
    unfinished: str | None
    now: datetime
    facts: Facts
    history: History
    galleries: list[Gallery]
    images: dict[int, ImageRow]
    taken: Taken
    notes: Mapping[str, str]

    @property
    def pictures(self) -> int:
        """How many there are; one that is shown twice counts once."""
        return sum(isinstance(one, Picture) for one in self.taken.values())

    @property
    def not_shown(self) -> dict[str, int]:
        """Pictures that are not there, by reason."""
        reasons = [one for one in self.taken.values() if isinstance(one, str) and one]
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def find(output: str, notes: Mapping[str, str], patience_s: float = PATIENCE_S) -> Found:
    """What the page of a run is made of; see `write_report`."""
    with Database({"": output}) as database:
        run = database.runs[""]
        facts = find_facts(database)
        galleries = choose(database, facts)
        images = read_chosen(database, galleries)
    examples = [one for gallery in galleries for group in gallery.groups for one in group.examples]
    taken = _pictures(run, examples, images, patience_s)
    return Found(
        output=clean_uri(output),
        record=run.record,
        unfinished=unfinished(run),
        now=datetime.now(UTC),
        facts=facts,
        history=find_history(run),
        galleries=galleries,
        images=images,
        taken=taken,
        notes=notes,
    )


def _pictures(
    run: RunDirectory, examples: Sequence[Example], images: dict[int, ImageRow], patience_s: float
) -> Taken:
    if patience_s <= 0:
        return dict.fromkeys(examples, "")
    before = configured_storage()
    try:
        read = photo_reader(run)
        return take_pictures(examples, images, read, run.record.spec["decode"]["max_pixels"], patience_s)
    except RaylabelError as error:  # the numbers are worth a page without photos
        return dict.fromkeys(examples, str(error))
    finally:
        configure_storage(before)
