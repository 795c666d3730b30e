"""Images that look alike: the nearest embeddings of a run, by cosine similarity."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.results.files import scan
from jobs.results.sql import Database
from schemas.errors import reason_of
from schemas.exceptions import ImageError, ModelError, ProcessDiedError, SpecError, StorageError
from schemas.locations import Location
from schemas.spec_file import override_spec
from schemas.tasks import OBJECT_EMBEDDINGS
from workers.fetch.locate import location_of
from workers.label.children import build_photo_embedder, build_text_embedder
from workers.ledger.directory import RunDirectory
from workers.printable import is_unicode, short_line
from workers.process.child import Child
from workers.process.forkserver import shared_fork_server

BATCH_ROWS = 8192
"""Embeddings that are in memory at once; one of the files' row groups has 4,096."""

LIKE_ALLOWED = "Allowed are the row, URI or name of an image of the run, and any photo: a path or a URL"
"""What `--like` may be."""

TEXT_ALLOWED = "Allowed is what a photo may show, in words, such as 'a red car at night'"
"""What `--text` may be."""

Vector = NDArray[np.float32]
"""An embedding, float32 (width,)."""


@dataclass(frozen=True, slots=True)
class Similar:
    """An image that is like another one.

    Attributes:
        row: in the manifest.
        similarity: cosine of the angle between their embeddings, from -1 to 1; 1: they point the same way.
    """

    row: int
    similarity: float


def nearest(
    output: str, vector: Vector, most: int, among: NDArray[np.int64] | None = None, without: int | None = None
) -> list[Similar]:
    """The images of a run whose embeddings are nearest to a vector, compared with each of them.

    Args:
        output: the run directory.
        vector: float32 (width,).
        most: images, at most.
        among: rows in the manifest, ascending, of the images to compare; None: all.
        without: the row of an image to leave out: the one that others are to be like.

    Returns:
        The most alike first; of those that are equally alike the first in the manifest.

    Raises:
        DamagedFileError: a file of the embeddings cannot be read.
    """
    rows, similarities = np.empty(0, np.int64), np.empty(0, np.float32)
    for batch_rows, batch in embeddings(output):
        chosen = batch_rows != (-1 if without is None else without)
        if among is not None:
            chosen &= _is_in(batch_rows, among)
        if not chosen.any():
            continue
        rows = np.concatenate([rows, batch_rows[chosen]])
        similarities = np.concatenate([similarities, cosines(batch[chosen], vector)])
        first = _first(rows, similarities, most)
        rows, similarities = rows[first], similarities[first]
    return best(rows, similarities, most)


def best(rows: NDArray[np.int64], similarities: NDArray[np.float32], most: int) -> list[Similar]:
    """The most alike of some images, by their rows and similarities."""
    first = _first(rows, similarities, most)
    pairs = zip(rows[first], similarities[first], strict=True)
    return [Similar(int(row), float(similarity)) for row, similarity in pairs]


def _first(rows: NDArray[np.int64], similarities: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """The places of the most alike; of those that are equally alike the first rows."""
    places: NDArray[np.int64] = np.lexsort((rows, -similarities))[:most]
    return places


def cosines(vectors: NDArray[np.float32], vector: Vector) -> NDArray[np.float32]:
    """The cosine of the angle between each of some vectors, float32 (n, width), and another; 0 for zeros."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    products = vectors @ vector
    products[lengths > 0] /= lengths[lengths > 0]
    return products


def embedding_of_row(database: Database, row: int) -> Vector:
    """The embedding of an image of a run.

    Raises:
        SpecError: the row is none of the manifest, or it failed.
    """
    found = list(database.rows("SELECT embedding FROM embeddings WHERE manifest_index = ?", [row]))
    if not found:
        rows = database.runs[""].plan.rows
        raise SpecError(f"row {row:,} has no embedding: it failed, or is none of 0 to {rows - 1:,}")
    return np.asarray(found[0]["embedding"], np.float32)


def embedding_of_photo(run: RunDirectory, uri: str) -> Vector:
    """The embedding that a photo gets from the run's own embedder, by the run's own decode policy.

    Args:
        run: with an embedder.
        uri: of the photo; a path, or any URL that a manifest may have.

    Raises:
        StorageError: the photo cannot be read, or is none.
        ModelError: the embedder cannot be built as it was.
    """
    record = run.record
    spec = override_spec(record.spec, {}, f"the spec of the run at {run.store.url}")
    fingerprint = record.models["embedder"].fingerprint
    child = Child(
        shared_fork_server().address, build_photo_embedder, (spec, fingerprint), 1, plain_output=True
    )
    try:
        location: Location = location_of(uri if "://" in uri else os.path.abspath(uri))
        vector: Vector = child(location)
    except (ImageError, ProcessDiedError) as error:
        reason = reason_of(error.code, error.message).rstrip(".")
        raise StorageError(f"--like {short_line(uri)}: {reason}. {LIKE_ALLOWED}") from None
    finally:
        child.end()
    return vector


class TextVectors:
    """The vectors of texts by the half for texts of a run's embedder, in a process that stays for the next.

    Safe to use from several threads.

    Args:
        run: with an embedder.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._is_built = False

    def __call__(self, text: str) -> Vector:
        """The vector of a text, float32 (width,); the text is taken as it is.

        Raises:
            SpecError: there is no text, or it is not Unicode.
            ModelError: the embedder has no half for texts, or cannot be built as it was; or the text is too
                long.
        """
        if not text.strip():
            raise SpecError(f"--text is empty. {TEXT_ALLOWED}")
        if not is_unicode(text):
            raise SpecError(f"--text {short_line(ascii(text))} is no Unicode text. {TEXT_ALLOWED}")
        with self._lock:
            try:
                vector: Vector = self._open()(text)
            except ProcessDiedError as death:
                self._end()
                raise ModelError(f"--text: the process that encodes the text died: {death.message}") from None
            except ModelError as error:
                if not self._is_built:
                    self._end()  # so that the next text finds what was put right
                raise ModelError(f"--text: {error}") from None
            self._is_built = True
        return vector

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._end()

    def _open(self) -> Child:
        if self._child is None:
            record = self._run.record
            spec = override_spec(record.spec, {}, f"the spec of the run at {self._run.store.url}")
            what = spec, record.models["embedder"]
            self._is_built = False
            self._child = Child(shared_fork_server().address, build_text_embedder, what, 1, plain_output=True)
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


def assert_embeddings(run: RunDirectory) -> None:
    """Refuses a run without embeddings.

    Raises:
        SpecError: saying how there are some.
    """
    if OBJECT_EMBEDDINGS in run.tables.names:
        raise SpecError(
            "the run has embeddings of objects (`embedder:` with `on: boxes`), none of whole images, which "
            f"tell what images are alike. Those of objects are compared in SQL, in `{OBJECT_EMBEDDINGS}`: "
            "docs/two-stages.md. For images write `embedder:` without `on: boxes` and label into another "
            "output"
        )
    if "embeddings" not in run.tables.names:
        raise SpecError(
            "the run has no embeddings, which tell what is alike. Write `embedder:` in the job spec and "
            "label into another output"
        )


def embeddings(output: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yields the embeddings of a run: rows in the manifest, and vectors, float32 (n, width)."""
    for batch in scan(output, "embeddings", ["manifest_index", "embedding"], BATCH_ROWS):
        vectors = batch["embedding"]
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
        yield batch["manifest_index"].to_numpy(zero_copy_only=False), flat.reshape(batch.num_rows, -1)


def _is_in(rows: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some rows are among others, which ascend."""
    places = np.searchsorted(among, rows)
    places[places == len(among)] = 0
    return among[places] == rows if len(among) else np.zeros(len(rows), bool)
