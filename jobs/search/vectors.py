"""An index of a run's embeddings: a Lance dataset, in which the nearest are found without comparing all.

Vectors lie in partitions around centres; a search compares those of the nearest `PROBES` partitions by their
quantized numbers, and the best `REFINE` times as many as are asked for by their own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.search.similar import Similar, Vector, best, cosines, embeddings
from schemas.exceptions import OutputConflictError, RaylabelError, SpecError, StorageError
from schemas.words import counted
from workers.printable import message_of, short_line

PARTITION_ROWS = 1000
"""Vectors in a partition, on average."""

PROBES, REFINE = 20, 5
"""See above."""

FEWEST = 10_000
"""Embeddings that are worth an index: comparing as many with a vector takes milliseconds."""

EXACT_ROWS = 20_000
"""Images of a query, at most, that are compared one by one."""

_STATE = b"raylabel.state"
"""The key in the schema's metadata of the state of the run's tables; see `jobs.search.index.state_of`."""


def assert_lance() -> Any:
    """The package; refuses where it is not installed.

    Raises:
        SpecError: saying how it is.
    """
    os.environ.setdefault("LANCE_LOG", "error")  # it warns of queues and small clusters, a thousand times
    try:
        import lance
    except ImportError:
        raise SpecError(
            "--vectors needs a package that is not installed: pip install 'raylabel[lance]'"
        ) from None
    return lance


def assert_replaceable(folder: Path) -> None:
    """Refuses to write an index of vectors where something else is.

    Raises:
        StorageError: naming it.
    """
    if folder.exists() and _opened(folder) is None:
        raise StorageError(
            f"cannot write {folder}: it exists, and is no index of vectors that can be read; move or delete "
            "it, or name another file with --into"
        )


def is_older(folder: Path, state: str) -> bool:
    """Whether a folder is an index of vectors of other tables; Lance may not be installed."""
    try:
        dataset = _opened(folder)
    except SpecError:
        return False
    return dataset is not None and _state_of(dataset) != state


def _opened(folder: Path) -> Any:
    """The dataset of an index of vectors; None: a folder has no such index."""
    lance = assert_lance()
    try:
        dataset = lance.dataset(str(folder))
        return dataset if _STATE in (dataset.schema.metadata or {}) else None
    except Exception:  # Lance has no exceptions of its own
        return None


def _state_of(dataset: Any) -> str:
    """The state of the tables that an index of vectors was made of."""
    state: bytes = dataset.schema.metadata[_STATE]
    return state.decode()


def write_vectors(output: str, folder: Path, state: str, width: int) -> int:
    """Writes the index of a run's embeddings.

    Args:
        output: the run directory.
        folder: to write; nothing is there.
        state: of the run's tables.
        width: of an embedding.

    Returns:
        The number of embeddings.

    Raises:
        DamagedFileError: a file of the run is damaged.
        StorageError: it cannot be written.
    """
    lance = assert_lance()
    schema = pa.schema(
        {"manifest_index": pa.int64(), "embedding": pa.list_(pa.float32(), width)}, metadata={_STATE: state}
    )
    failures: list[RaylabelError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for rows, vectors in embeddings(output):
                flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
                yield pa.RecordBatch.from_arrays([pa.array(rows), flat], schema=schema)
        except RaylabelError as failure:  # Lance makes a text of it
            failures.append(failure)
            raise

    try:
        dataset = lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches()), str(folder))
        rows: int = dataset.count_rows()
        if rows >= FEWEST:
            partitions = rows // PARTITION_ROWS
            dataset.create_index("embedding", "IVF_SQ", num_partitions=partitions, metric="cosine")
    except Exception as error:  # Lance has no exceptions of its own
        written = StorageError(f"cannot write {folder}: Lance says: {message_of(error)}")
        raise (failures or [written])[0] from None
    return rows


class Vectors:
    """An index of embeddings, opened.

    Args:
        folder: where it is.
        state: of the run's tables.
        again: how it is made, for messages.

    Raises:
        OutputConflictError: it is older than the tables.
        StorageError: it cannot be read.
    """

    def __init__(self, folder: Path, state: str, again: str) -> None:
        self._dataset = _opened(folder)
        if self._dataset is None:
            raise StorageError(f"{folder} is no index of vectors that can be read; delete it, or {again}")
        self._folder, self._again = folder, again
        if _state_of(self._dataset) != state:
            raise OutputConflictError(f"{folder} is older than the tables, which have changed; {again}")

    def nearest(
        self, vector: Vector, most: int, among: NDArray[np.int64] | None = None, without: int | None = None
    ) -> list[Similar] | None:
        """The images whose embeddings are nearest to a vector, or nearly: see `jobs.search.similar.nearest`.

        Returns:
            None where too many images of a query have to be looked at; comparing all is faster then.
        """
        if among is not None and len(among) <= EXACT_ROWS:
            return self._among(vector, most, among, without)
        asked = most + (without is not None)
        if among is not None:
            asked = int(2 * asked * len(self._rows) / len(among)) + 10
            if asked > EXACT_ROWS:
                return None
        nearest = {"column": "embedding", "q": vector, "k": asked, "metric": "cosine"}
        # of a query's images the nearest may lie farther away
        nearest |= {"nprobes": PROBES if among is None else 4 * PROBES, "refine_factor": REFINE}
        with self._readable():
            found = self._dataset.to_table(columns=["manifest_index", "_distance"], nearest=nearest)
        rows = found["manifest_index"].to_numpy()
        chosen = rows != (-1 if without is None else without)
        if among is not None:
            chosen &= np.isin(rows, among)
            if chosen.sum() < most:
                return None
        return best(rows[chosen], 1 - found["_distance"].to_numpy()[chosen], most)

    def _among(
        self, vector: Vector, most: int, among: NDArray[np.int64], without: int | None
    ) -> list[Similar]:
        """The nearest of a few images, each compared."""
        chosen = among[np.isin(among, self._rows) & (among != (-1 if without is None else without))]
        if not len(chosen):
            return []
        with self._readable():
            taken = self._dataset.take(np.searchsorted(self._rows, chosen), columns=["embedding"])
        flat = taken["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return best(chosen, cosines(flat.reshape(len(chosen), -1), vector), most)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Says that a file cannot be read, where Lance does."""
        try:
            yield
        except Exception as error:  # Lance has no exceptions of its own
            wrong = short_line(message_of(error))
            raise StorageError(f"{self._folder} cannot be read ({wrong}); {self._again}") from None

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """The rows in the manifest of all vectors, ascending."""
        with self._readable():
            column = self._dataset.to_table(columns=["manifest_index"])["manifest_index"]
        rows: NDArray[np.int64] = column.to_numpy()
        return rows


def in_words(rows: int) -> str:
    """What was written, in words."""
    compared = "" if rows >= FEWEST else f", too few for an index: all are compared (it begins at {FEWEST:,})"
    return f"{counted(rows, 'embedding')}{compared}"
