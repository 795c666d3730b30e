"""The index of a run: its labels, classes and columns in one DuckDB file, which answers queries."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.results.duck import Duck, in_quotes
from jobs.search.vocabulary import ERROR, Term
from schemas.exceptions import RaylabelError
from schemas.ledger import SUCCESS, RunRecord
from workers.ledger.directory import RunDirectory
from workers.ledger.state import read_shards, read_success

INDEX = "search.duckdb"
"""The key of the index, beside the tables."""

VERSION = 3
"""Of what is in the file."""

MIN_LABEL_SCORE = 0.1
"""Score of a label beside the best one that it is found by, by default."""

FACTS = (
    *("image_id", "width", "height", "format", "byte_size", "exif_orientation", "source_mode"),
    *("frame_count", "label", "score", "object_count"),
)
"""The columns of labels that an image has in the index, beside its row and its URI."""

_IMAGE, _TERM, _SCORE = "image BIGINT NOT NULL", "term INTEGER NOT NULL", "score FLOAT NOT NULL"
TABLES = {
    "images": ("manifest_index BIGINT NOT NULL", "uri VARCHAR NOT NULL", f"{ERROR} VARCHAR"),
    "failures": (_IMAGE, "stage VARCHAR NOT NULL", "message VARCHAR NOT NULL"),
    "found": (_TERM, _IMAGE, _SCORE, "count INTEGER", "area FLOAT"),
    "objects": (
        *(_IMAGE, _TERM, _SCORE, *(f"{corner} FLOAT NOT NULL" for corner in ("x1", "y1", "x2", "y2"))),
        "tags STRUCT(term INTEGER, score FLOAT)[]",
    ),
}
"""The tables of the file and their columns; images have those of labels and the manifest's own as well."""


@dataclass(frozen=True, slots=True)
class About:
    """What an index is of.

    Attributes:
        version: see `VERSION`.
        run_id: of the run.
        state: of its tables; see `state_of`.
        labelled: images in it.
        failed: failed images in it.
        min_label_score: see `MIN_LABEL_SCORE`.
        carried: names of the manifest's own columns.
        facets: columns whose values are facets.
        times: columns whose values are times; their facets are years, months or days.
        taggers: of the run.
        made_at: UTC, ISO 8601.
    """

    version: int
    run_id: str
    state: str
    labelled: int
    failed: int
    min_label_score: float
    carried: tuple[str, ...]
    facets: tuple[str, ...]
    times: tuple[str, ...]
    taggers: tuple[str, ...]
    made_at: str

    @classmethod
    def parse(cls, text: str) -> "About":
        """The opposite of `to_json`.

        Raises:
            ValueError: it is none of this version.
        """
        values: dict[str, Any] = json.loads(text)
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']}")
        lists = {name: tuple(values[name]) for name in ("carried", "facets", "times", "taggers")}
        return cls(**{**values, **lists})

    def to_json(self) -> str:
        """It as JSON."""
        return json.dumps(asdict(self))


def is_index(file: Path) -> bool:
    """Whether a file is an index, or there is none: it may be replaced."""
    if not os.path.lexists(file):
        return True
    try:
        with Duck() as duck:
            duck.execute(f"ATTACH {in_quotes(str(file))} AS file (READ_ONLY)")
            ((text,),) = duck.result("SELECT text FROM file.about")
            return "run_id" in json.loads(text)
    except (RaylabelError, ValueError, TypeError):
        return False


def vectors_of(index: Path) -> Path:
    """Where the vectors of an index are: beside it."""
    return index.with_suffix(".lance")


def state_of(run: RunDirectory) -> str:
    """A digest that changes whenever the tables of a run do."""
    newest = run.newest()
    if read_success(run.store, lambda _: None) is not None:
        parts = [run.store.read(SUCCESS)]
    else:
        parts = [record.to_json() for _, record in sorted(read_shards(newest)[0].items())]
    digest = hashlib.sha256(f"{run.record.id} {newest.retry} {len(parts)}".encode())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:32]


def terms_of(record: RunRecord) -> list[Term]:
    """All that a run's models can find, each name of a model once."""
    terms: list[Term] = []
    for name, model in record.models.items():
        section, _, tagger = name.partition(".")
        kind = {"detector": "class", "classifier": "label", "taggers": "tag"}.get(section)
        if kind:
            terms += [
                Term(len(terms) + number, kind, tagger, category)  # type: ignore[arg-type]
                for number, category in enumerate(model.classes)
            ]
    return terms
