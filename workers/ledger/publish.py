"""Publishing: a shard's final files made from its staged parts, the same bytes however often."""

import hashlib
import logging
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.exceptions import OutputConflictError, ReconcileError
from schemas.ledger import (
    COMMITS,
    PARTS,
    ChosenCommit,
    Commit,
    Publication,
    Shard,
    pass_name,
    shard_folder,
    shard_name,
    table_key,
)
from schemas.ranges import from_ranges, to_ranges
from schemas.tables import TABLES
from workers.ledger.damage import MISSING, TABLE, damaged
from workers.ledger.directory import RunDirectory
from workers.storage.uris import clean_uri
from workers.tables.parquet import count_codes, parquet_bytes, write_file

_log = logging.getLogger(__name__)

Tables = dict[str, pa.Table]
"""By name: labels, boxes, ..."""


def choose_commits(run: RunDirectory, shard: int, commits: Iterable[Commit]) -> Publication:
    """Which commit each unit of a shard is taken from: the first that has it.

    Raises:
        ReconcileError: a unit of the shard is in no commit.
    """
    missing = set(run.current.units_of_shard(shard))
    chosen = []
    for commit in commits:
        if taken := missing.intersection(from_ranges(commit.units).tolist()):
            missing -= taken
            chosen.append(ChosenCommit(units=to_ranges(taken), files=commit.files))
    if missing:
        raise ReconcileError(
            f"shard {shard} cannot be published: units {sorted(missing)[:10]} are in no commit"
        )
    return Publication(retry=run.retry, shard=shard, chosen=chosen)


def publish_shard(run: RunDirectory, shard: int) -> Shard:
    """Writes a shard's tables where readers glob for them, and deletes its staged parts.

    The choice of commits is pinned first, conditionally, so that the files are a pure function of it: two
    publishers, or one that was interrupted, write the same bytes. A retry's rows take the place of those
    that the shard's files hold of the same images. A publisher that slept looks again before each file, and
    leaves a shard alone that was published meanwhile.

    Raises:
        OutputConflictError: the run was restarted meanwhile.
        ReconcileError: the parts do not hold every row of the shard exactly once; nothing was published.
        DamagedFileError: a part, the choice, or the file that a retry changes is damaged; nor was it then.
        StorageError: a file could not be read or written.
    """
    published = _published(run, shard)
    if published is None:
        published = _publish(run, shard)
    for kind in (COMMITS, PARTS):
        run.ledger.clear(shard_folder(kind, run.retry, shard))
    return published


def _published(run: RunDirectory, shard: int) -> Shard | None:
    """What this pass, or a later one, published of the shard already.

    The first pass publishes again where the record is damaged; a retry cannot tell what it would change.
    """
    record = next(run.read(Shard, [Shard.key_of(shard)], None if run.retry else lambda _: None), None)
    return record if record and record.retry >= run.retry else None


def _publish(run: RunDirectory, shard: int) -> Shard:
    publication = _pinned(run, shard)
    new, tables = make_tables(run, publication)
    files = {}
    # a reader that sees an image's label finds its boxes
    for name in (*run.tables.of_labelled, "labels", "errors"):
        if newer := _superseded(run, publication):
            return newer
        files[name] = write_file(run.store, f"{name}/{shard_name(shard)}", tables[name], name)
    published = Shard(
        shard=shard,
        retry=run.retry,
        files=files,
        failed=count_codes(new["errors"]),
        errors=count_codes(tables["errors"]),
    )
    if newer := _superseded(run, publication):
        return newer
    run.put(published)
    rows = ", ".join(f"{files[name].rows} {name}" for name in run.tables.names)
    _log.info("published shard %d: %s", shard, rows)
    return published


def make_tables(run: RunDirectory, publication: Publication) -> tuple[Tables, Tables]:
    """What a pass did of a shard, and the shard's whole tables that come of it.

    Raises:
        ReconcileError: the parts do not hold every row that the pass has of the shard exactly once.
        DamagedFileError: a part, or for a retry a published file, is gone or not as it was recorded.
    """
    shard = publication.shard
    new = {name: _gather(run, publication, name) for name in run.tables.names}
    indexes = pa.concat_arrays([new[n]["manifest_index"].combine_chunks() for n in ("labels", "errors")])
    if sorted(indexes.to_pylist()) != list(run.current.rows_of_shard(shard)):
        raise ReconcileError(f"the parts of shard {shard} do not hold each of its rows once")
    if run.retry == 0:
        return new, new
    return new, {name: _merged(run, shard, name, new[name]) for name in new}


def _superseded(run: RunDirectory, publication: Publication) -> Shard | None:
    """What another publisher made of the shard since this one began: older rows must not replace it.

    Raises:
        OutputConflictError: the choice for the shard is gone, with its run or its pass, or it is another by
            now, as this one was damaged.
    """
    shard = publication.shard
    if newer := _published(run, shard):
        return newer
    if run.get(Publication, run.retry, shard) != publication:
        raise OutputConflictError(
            f"shard {shard} is not published: {clean_uri(run.store.url)} was restarted with --restart, or "
            "deleted, or another attempt has taken over"
        )
    return None


def _pinned(run: RunDirectory, shard: int) -> Publication:
    """The choice of commits that counts: the one that an earlier publisher pinned, else this one's.

    Keys of commits ascend by attempt, then by units, so that every publisher chooses alike. A commit that is
    gone since it was listed was merged, or its shard was published: at worst its units are done once more.
    """
    if pinned := run.get(Publication, run.retry, shard):
        return pinned
    commits = run.read(Commit, run.list(Commit, pass_name(run.retry), shard_name(shard)))
    chosen = choose_commits(run, shard, commits)
    if run.create(chosen):
        return chosen
    return run.get(Publication, run.retry, shard) or chosen


def _gather(run: RunDirectory, publication: Publication, name: str) -> pa.Table:
    """One table of what a pass did of a shard: the chosen units' rows of every part, in manifest order."""
    pieces = [run.tables.schema(name).empty_table()]
    chosen = [(file, winner.units) for winner in publication.chosen for file in winner.files[name]]
    tables = run.read_parts(file for file, _ in chosen)
    for (_, units), rows in zip(chosen, tables, strict=True):
        unit = pc.divide(rows["manifest_index"], run.plan.unit_rows)
        pieces.append(rows.filter(pc.is_in(unit, pa.array(from_ranges(units)))))
    return _in_order(pieces, name)


def _merged(run: RunDirectory, shard: int, name: str, new: pa.Table) -> pa.Table:
    """A table of a published shard, with a retry's rows in the place of those of the same images.

    Raises:
        DamagedFileError: the file is neither the one that was published last, nor already what is made of it.
    """
    key = table_key(name, shard)
    record = run.get(Shard, shard)
    if record is None:
        raise run.damaged(Shard, Shard.key_of(shard), MISSING)
    try:
        data = run.store.read(key)
        old = pq.read_table(pa.BufferReader(data))
        done = pc.is_in(old["manifest_index"], pa.array(run.current.rows_of_shard(shard), pa.int64()))
        merged = _in_order([old.filter(pc.invert(done)).cast(new.schema), new], name)
    except FileNotFoundError:
        raise damaged(TABLE, run.store, key, MISSING) from None
    except (pa.ArrowException, OSError, LookupError, ValueError):
        raise damaged(TABLE, run.store, key, "it is not the table that was published") from None
    if hashlib.sha256(data).hexdigest() != record.files[name].sha256:
        there = parquet_bytes(_in_order([old.cast(new.schema)], name), name)
        if there != parquet_bytes(merged, name):  # a publisher that was killed may have written it already
            raise damaged(TABLE, run.store, key, "its content is not what was published")
    return merged


def _in_order(pieces: list[pa.Table], name: str) -> pa.Table:
    table = pa.concat_tables(pieces).unify_dictionaries()
    return table.sort_by([(column, "ascending") for column in TABLES[name].order]).combine_chunks()
