"""What a format of `raylabel export` is, and what it is given."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from jobs.exports.names import file_name
from jobs.results.images import ImageRow
from workers.ledger.directory import RunDirectory

PARTS = {
    "boxes": "objects",
    "scores": "the scores of objects",
    "labels": "the classifier's labels",
    "tags": "tags",
    "embeddings": "embeddings",
    "object_embeddings": "embeddings of objects",
    "carried": "the manifest's own columns",
}
"""What a run may have of an image, by name, and how it is called in a sentence."""

ALL = frozenset(PARTS) - {"object_embeddings"}
"""All that a format with a row for each image holds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A labelled image of an export.

    Attributes:
        image: its row; `class_id` and `class_name` of a box are those of the export's classes, and boxes that
            the export leaves out are not there.
        folder: of its copy, below the export's; None where photos are not copied.
    """

    image: ImageRow
    folder: str | None = None

    @property
    def id(self) -> int:
        """Its number in formats that number images, from 1: its manifest row and one."""
        return self.image.manifest_index + 1

    @property
    def name(self) -> str:
        """The name of its file: unique in the run; see `jobs.exports.names`."""
        return file_name(self.image)

    @property
    def stem(self) -> str:
        """The name without its ending; unique as well."""
        return self.name.rpartition(".")[0]

    @property
    def path(self) -> str:
        """Where its photo is: below the export's folder where it is copied there, otherwise its URI."""
        return f"{self.folder}/{self.name}" if self.folder else self.image.uri

    @property
    def counts(self) -> dict[str, int]:
        """The number of its boxes by class name."""
        counts: dict[str, int] = {}
        for box in self.image.boxes:
            counts[box.class_name] = counts.get(box.class_name, 0) + 1
        return counts


@dataclass(frozen=True, slots=True)
class Export:
    """What a format writes.

    Attributes:
        run: the run.
        classes: names of the classes of objects, in the order of their ids, which start from 0: all that the
            detector knows, whether or not they occur; empty where no detector ran.
        samples: the images, in manifest order; they are read while they are taken.
        carried: the manifest's own columns, under their names in `ImageRow.carried`.
        into: the folder or file that the user named.
        copied: whether photos are copied.
    """

    run: RunDirectory
    classes: tuple[str, ...]
    samples: Iterator[Sample]
    carried: pa.Schema
    into: Path
    copied: bool = False

    @property
    def has_classes(self) -> bool:
        """Whether a detector ran."""
        return "detector" in self.run.record.models


@dataclass(frozen=True, slots=True)
class Format:
    """A format of `raylabel export`.

    Attributes:
        name: for `--format`.
        about: what it is, in a line.
        keeps: names out of `PARTS`; what the run has beside them is lost.
        write: writes an export to a path: into an empty folder, or where `is_file` to a name at which nothing
            is.
        photos: the folder for copied photos; None: it takes none.
        needs_detector: whether it is nothing without boxes.
        is_file: whether it is one file.
        names_files: whether its files lead to a photo only by the names of the copies: then there is a list
            of them, `images.csv`.
        by_key: whether `key` is an image's identity in it.
        reads_local: whether its tool reads photos on a local disk only.
        needs: the package that it needs beside raylabel's own, and how to get it; None: none.
        note: what is to be known of it each time; "" for nothing.
    """

    name: str
    about: str
    keeps: frozenset[str]
    write: Callable[[Export, Path], None]
    photos: str | None = None
    needs_detector: bool = False
    is_file: bool = False
    names_files: bool = False
    by_key: bool = False
    reads_local: bool = False
    needs: tuple[str, str] | None = None
    note: str = ""
