"""`raylabel reconcile`: a run proved from its files alone, whatever state it is in, and while it is written.

Nothing is written, no Ray and no model is needed. One shard's tables are in memory at a time for each of
`CHECKS_AT_ONCE` threads.
"""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from rich.console import Console

from jobs.verify.checks import Issue
from jobs.verify.shards import MAX_RETRIES, Run, check_shard, table_key
from schemas.exceptions import ReconcileError
from schemas.ledger import COMMITS, PUBLICATIONS, SHARDS, SUCCESS, shard_number
from schemas.tables import TABLES
from workers.ledger.state import count_rows
from workers.storage.uris import clean_uri

CHECKS_AT_ONCE = 4
"""Shards proved at once: each is held in memory."""

MAX_ISSUES_SHOWN = 20
"""Faults that are told one by one."""


ADVICE = "Put files that are no run's elsewhere, and others back from a copy; or begin anew with --restart"
"""What to do about faults: nothing here makes up for files that somebody changed."""


@dataclass(frozen=True)
class VerifyReport:
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
        issues: everything that is not as it must be.
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
    issues: tuple[Issue, ...]

    @property
    def to_do(self) -> int:
        """Rows that are neither published nor committed."""
        return self.rows - self.published - self.committed

    @property
    def state(self) -> Literal["complete", "incomplete", "faulty"]:
        """What a script goes by."""
        if self.issues:
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
                "fault_count": len(self.issues),
                "faults": [dataclasses.asdict(issue) for issue in self.issues[:MAX_ISSUES_SHOWN]],
            }
        )

    def __str__(self) -> str:
        if self.issues:
            more = len(self.issues) - MAX_ISSUES_SHOWN
            lines = [f"  {issue}" for issue in self.issues[:MAX_ISSUES_SHOWN]]
            lines += [f"  and {more:,} more"] if more > 0 else []
            issues = "1 fault" if len(self.issues) == 1 else f"{len(self.issues):,} faults"
            return "\n".join([f"{self.output} is not as its ledger says, {issues}:", *lines, ADVICE])
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
    report = prove_run(output)
    if as_json:
        print(report.to_json())
    if report.issues:
        raise ReconcileError(str(report))
    if not as_json:
        Console(highlight=False, soft_wrap=True).print(f"{report}.", markup=False)
    return report.complete


def prove_run(output: str) -> VerifyReport:
    """Proves a run from its files; once more where it was completed, retried or begun anew meanwhile.

    Raises:
        StorageError: there is no run, or a file cannot be read.
    """
    run = Run.find(output)
    for _ in range(MAX_RETRIES):
        report = _prove(run)
        again = Run.find(output)
        if again.state == run.state:
            break
        run = again
    return report


def _prove(run: Run) -> VerifyReport:
    begun, strangers = _begun(run)
    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        proofs = list(pool.map(lambda shard: check_shard(run, shard), begun))
    number = 0 if run.complete else run.folder.retry
    work, shards = run.works[number], run.shards[number]
    done = [
        shard for shard, report in zip(begun, proofs, strict=True) if report.published and shard in shards
    ]
    records = [report.record for report in proofs if report.record]
    tables = count_rows(records)
    issues = [*strangers, *(issue for report in proofs for issue in report.issues)]
    if run.success is not None and len(records) == run.plan.shards:
        issues += _check_success(run.success, tables)
    return VerifyReport(
        output=clean_uri(run.folder.store.url),
        complete=run.complete,
        retry=run.folder.retry,
        rows=work.size,
        tables=tables,
        shards=len(shards),
        published_shards=len(done),
        published=sum(len(work.rows_of_shard(shard)) for shard in done),
        committed=sum(report.committed for report in proofs),
        issues=tuple(issues),
    )


def _begun(run: Run) -> tuple[list[int], list[Issue]]:
    """The shards that there is anything of, or must be, and the files that are no shard's."""
    number = f"{run.folder.retry:03d}"
    ledger, last = run.folder.ledger, run.plan.shards - 1
    begun = set(range(run.plan.shards)) if run.complete or run.folder.retry else set()
    issues = []
    for table in TABLES:
        for key in run.folder.store.list(table):
            shard = _number(key, 1, ".parquet")
            if shard is None or shard > last or key != table_key(table, shard):
                issues.append(Issue(key, "a file that no shard of this run has", "none"))
            else:
                begun.add(shard)
    for key in ledger.list(SHARDS):
        shard = _number(key, 1, ".json")
        if shard is None or shard > last:
            issues.append(Issue(run.called(key), "a record of no shard of this run", "none"))
        else:
            begun.add(shard)
    pinned = (_number(key, 2, ".json") for key in ledger.list(f"{PUBLICATIONS}/{number}"))
    committed = (_number(key, 2, "") for key in ledger.list(f"{COMMITS}/{number}"))
    begun.update(shard for shard in (*pinned, *committed) if shard is not None and shard <= last)
    return sorted(begun), issues


def _number(key: str, level: int, ending: str) -> int | None:
    return shard_number(key.split("/")[level].removesuffix(ending))


def _check_success(success: bytes, tables: dict[str, int]) -> list[Issue]:
    try:
        said = json.loads(success)
    except ValueError:
        said = success[:100].decode(errors="replace")
    return [] if said == tables else [Issue(SUCCESS, str(said), f"{tables}, as the shards have them")]
