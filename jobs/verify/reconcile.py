"""`raylabel reconcile`: a run proved from its files alone, whatever state it is in, and while it is written.

Nothing is written, no Ray and no model is needed. One shard's tables are in memory at a time for each of
`PROVERS` threads.
"""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from rich.console import Console

from jobs.verify.checks import Fault
from jobs.verify.shards import LOOKS, Run, prove_shard, table_key
from schemas.exceptions import ReconcileError
from schemas.ledger import COMMITS, PUBLICATIONS, SHARDS, SUCCESS, shard_number
from schemas.tables import TABLES
from workers.ledger.state import count_rows
from workers.storage.uris import clean_uri

PROVERS = 4
"""Shards proved at once: each is held in memory."""

MOST_FAULTS = 20
"""Faults that are told one by one."""


MEND = "Put files that are no run's elsewhere, and others back from a copy; or begin anew with --restart"
"""What to do about faults: nothing here makes up for files that somebody changed."""


@dataclass(frozen=True)
class Proof:
    """What was proved of a run.

    Attributes:
        output: the run directory.
        complete: whether it is marked complete.
        retry: the pass it is in; 0 is the first.
        rows: of the manifest; of an unfinished retry: the rows that it does.
        tables: rows of each table, by the records of the published shards.
        shards: how many there are to publish; of an unfinished retry: again.
        published_shards: of them published.
        published: rows of them.
        committed: rows that are committed and not published yet.
        faults: everything that is not as it must be.
    """

    output: str
    complete: bool
    retry: int
    rows: int
    tables: dict[str, int]
    shards: int
    published_shards: int
    published: int
    committed: int
    faults: tuple[Fault, ...]

    @property
    def to_do(self) -> int:
        """Rows that are neither published nor committed."""
        return self.rows - self.published - self.committed

    @property
    def state(self) -> Literal["complete", "incomplete", "faulty"]:
        """What a script goes by."""
        if self.faults:
            return "faulty"
        return "complete" if self.complete else "incomplete"

    def to_json(self) -> str:
        """The proof as `--json` prints it: one object, the first faults in it."""
        numbers = ("shards", "published_shards", "published", "committed", "to_do")
        return json.dumps(
            {
                **{name: getattr(self, name) for name in ("output", "state", "retry", "rows")},
                **self.tables,
                **{name: getattr(self, name) for name in numbers},
                "fault_count": len(self.faults),
                "faults": [dataclasses.asdict(fault) for fault in self.faults[:MOST_FAULTS]],
            }
        )

    def __str__(self) -> str:
        if self.faults:
            more = len(self.faults) - MOST_FAULTS
            lines = [f"  {fault}" for fault in self.faults[:MOST_FAULTS]]
            lines += [f"  and {more:,} more"] if more > 0 else []
            faults = "1 fault" if len(self.faults) == 1 else f"{len(self.faults):,} faults"
            return "\n".join([f"{self.output} is not as its ledger says, {faults}:", *lines, MEND])
        if self.complete:
            return (
                f"{self.output} is complete and proven: each of {self.rows:,} manifest rows is there once, "
                f"{self.tables['labels']:,} in labels and {self.tables['errors']:,} in errors; "
                f"{self.tables['boxes']:,} boxes agree with the counts of their images; and the "
                f"{len(TABLES) * self.shards:,} files are, byte for byte, the ones that were published"
            )
        what = f"retry {self.retry} is" if self.retry else "it is"
        return (
            f"{self.output} is proven as far as it goes, but {what} not complete yet: of {self.rows:,} rows "
            f"{self.published:,} are published (in {self.published_shards:,} of {self.shards:,} shards), "
            f"{self.committed:,} committed, {self.to_do:,} to do. The command that began it goes on with it"
        )


def reconcile_run(output: str, *, as_json: bool) -> bool:
    """Proves a run from its files, and prints what came of it.

    Returns:
        Whether it is complete. False: what there is of it is proven, and there is more to do.

    Raises:
        ReconcileError: naming what is not as it must be.
        StorageError: there is no run, or a file cannot be read.
    """
    proof = prove_run(output)
    if as_json:
        print(proof.to_json())
    if proof.faults:
        raise ReconcileError(str(proof))
    if not as_json:
        Console(highlight=False, soft_wrap=True).print(f"{proof}.", markup=False)
    return proof.complete


def prove_run(output: str) -> Proof:
    """Proves a run from its files; once more where it was completed, retried or begun anew meanwhile.

    Raises:
        StorageError: there is no run, or a file cannot be read.
    """
    run = Run.find(output)
    for _ in range(LOOKS):
        proof = _prove(run)
        again = Run.find(output)
        if again.state == run.state:
            break
        run = again
    return proof


def _prove(run: Run) -> Proof:
    begun, strangers = _begun(run)
    with ThreadPoolExecutor(PROVERS) as pool:
        proofs = list(pool.map(lambda shard: prove_shard(run, shard), begun))
    number = 0 if run.complete else run.folder.retry
    work, shards = run.works[number], run.shards[number]
    done = [shard for shard, proof in zip(begun, proofs, strict=True) if proof.published and shard in shards]
    records = [proof.record for proof in proofs if proof.record]
    tables = count_rows(records)
    faults = [*strangers, *(fault for proof in proofs for fault in proof.faults)]
    if run.success is not None and len(records) == run.plan.shards:
        faults += _prove_success(run.success, tables)
    return Proof(
        output=clean_uri(run.folder.store.url),
        complete=run.complete,
        retry=run.folder.retry,
        rows=work.size,
        tables=tables,
        shards=len(shards),
        published_shards=len(done),
        published=sum(len(work.rows_of_shard(shard)) for shard in done),
        committed=sum(proof.committed for proof in proofs),
        faults=tuple(faults),
    )


def _begun(run: Run) -> tuple[list[int], list[Fault]]:
    """The shards that there is anything of, or must be, and the files that are no shard's."""
    number = f"{run.folder.retry:03d}"
    ledger, last = run.folder.ledger, run.plan.shards - 1
    begun = set(range(run.plan.shards)) if run.complete or run.folder.retry else set()
    faults = []
    for table in TABLES:
        for key in run.folder.store.list(table):
            shard = _number(key, 1, ".parquet")
            if shard is None or shard > last or key != table_key(table, shard):
                faults.append(Fault(key, "a file that no shard of this run has", "none"))
            else:
                begun.add(shard)
    for key in ledger.list(SHARDS):
        shard = _number(key, 1, ".json")
        if shard is None or shard > last:
            faults.append(Fault(run.called(key), "a record of no shard of this run", "none"))
        else:
            begun.add(shard)
    pinned = (_number(key, 2, ".json") for key in ledger.list(f"{PUBLICATIONS}/{number}"))
    committed = (_number(key, 2, "") for key in ledger.list(f"{COMMITS}/{number}"))
    begun.update(shard for shard in (*pinned, *committed) if shard is not None and shard <= last)
    return sorted(begun), faults


def _number(key: str, level: int, ending: str) -> int | None:
    return shard_number(key.split("/")[level].removesuffix(ending))


def _prove_success(success: bytes, tables: dict[str, int]) -> list[Fault]:
    try:
        said = json.loads(success)
    except ValueError:
        said = success[:100].decode(errors="replace")
    return [] if said == tables else [Fault(SUCCESS, str(said), f"{tables}, as the shards have them")]
