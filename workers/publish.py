"""Publishing: a shard's final files made from its staged parts, the same bytes however often."""

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from schemas.exceptions import ReconcileError
from schemas.ledger import COMMITS, Commit, Publication, Shard, shard_name
from schemas.plan import Plan
from schemas.tables import TABLES, table_schema
from workers.parts import RunFolder, count_codes, write_file
from workers.storage import Store


def read_commits(store: Store, prefix: str = COMMITS) -> list[Commit]:
    """The commit entries below a folder of the run directory, ordered by key: by epoch, then by units."""
    keys = store.list(prefix)
    with ThreadPoolExecutor(16) as pool:
        return [Commit.model_validate_json(data) for data in pool.map(store.read, keys)]


def choose_winners(plan: Plan, shard: int, commits: list[Commit]) -> Publication:
    """Which commit each unit of a shard is taken from: the first that has it.

    Raises:
        ReconcileError: a unit of the shard is in no commit.
    """
    owner: dict[int, str] = {}
    for commit in commits:
        for unit in commit.units:
            owner.setdefault(unit, commit.key)
    missing = [unit for unit in plan.units_of_shard(shard) if unit not in owner]
    if missing:
        raise ReconcileError(f"shard {shard} cannot be published: units {missing[:10]} are in no commit")
    winners: dict[str, list[int]] = {}
    for unit, key in sorted(owner.items()):
        winners.setdefault(key, []).append(unit)
    return Publication(shard=shard, winners=winners)


def publish_shard(run: RunFolder, shard: int) -> Shard:
    """Writes a shard's labels, boxes and errors where readers glob for them.

    The choice of commits is pinned first, conditionally, so that the files are a pure function of it: two
    publishers, or one that was interrupted, write the same bytes.

    Raises:
        ReconcileError: the parts do not hold every row of the shard exactly once; nothing was published.
        StorageError: a file could not be read or written.
    """
    store = run.store
    known = read_commits(store, f"{COMMITS}/{shard_name(shard)}")
    publication = choose_winners(run.plan, shard, known)
    if not store.create(publication.key, publication.to_json()):
        publication = Publication.model_validate_json(store.read(publication.key))
        known = read_commits(store, f"{COMMITS}/{shard_name(shard)}")  # it may have chosen newer ones
    commits = {commit.key: commit for commit in known}

    tables = {name: _gather(run, publication, commits, name) for name in TABLES}
    found = pa.concat_arrays([tables[n]["manifest_index"].combine_chunks() for n in ("labels", "errors")])
    if sorted(found.to_pylist()) != list(run.plan.rows_of_shard(shard)):
        raise ReconcileError(f"shard {shard} does not hold each of {run.plan.rows_of_shard(shard)} once")

    # labels last: whoever sees an image's label finds its boxes
    files = {
        name: write_file(store, f"{name}/{shard_name(shard)}", tables[name], name)
        for name in ("boxes", "errors", "labels")
    }
    published = Shard(shard=shard, files=files, failed=count_codes(tables["errors"]))
    store.write(published.key, published.to_json())
    return published


def _gather(run: RunFolder, publication: Publication, commits: dict[str, Commit], name: str) -> pa.Table:
    """One table of a shard: the chosen units' rows of every part, in manifest order."""
    pieces = [table_schema(name, run.carried).empty_table()]
    for key, units in publication.winners.items():
        rows = run.store.read_table(commits[key].files[name].key)
        unit = pc.divide(rows["manifest_index"], run.plan.unit_rows)
        pieces.append(rows.filter(pc.is_in(unit, pa.array(units, pa.int64()))))
    order = ["manifest_index", "object_index"] if name == "boxes" else ["manifest_index"]
    table = pa.concat_tables(pieces).unify_dictionaries()
    return table.sort_by([(column, "ascending") for column in order]).combine_chunks()
