"""`raylabel reconcile`: a run verified by its files alone, in any state, and while it is written.

Nothing is written, no Ray and no model is needed. One shard's tables are in memory at a time for each of
`CHECKS_AT_ONCE` threads.
"""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from pydantic_core import from_json
from rich.console import Console

from jobs.verify.checks import Issue
from jobs.verify.shards import MAX_RETRIES, RunSnapshot, check_shard
from schemas.exceptions import ReconcileError
from schemas.ledger import SUCCESS, Commit, Publication, Shard, pass_name, shard_number, table_key
from schemas.tables import ALWAYS, TABLES
from schemas.words import counted, raylabel_command
from workers.ledger.state import count_rows
from workers.printable import printable
from workers.storage.uris import clean_uri

CHECKS_AT_ONCE = 4
"""Shards checked at once: each is held in memory."""

MAX_ISSUES_SHOWN = 20
"""Issues that are listed one by one."""


ADVICE = (
    "Move files that belong to no run elsewhere, and restore damaged ones from a copy; or start over with "
    "--restart"
)
"""What to do about issues: nothing here repairs files that somebody changed."""


@dataclass(frozen=True)
class VerifyReport:
    """What the check of a run gave.

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
    def state(self) -> Literal["complete", "incomplete", "damaged"]:
        """The outcome, for a script."""
        if self.issues:
            return "damaged"
        return "complete" if self.complete else "incomplete"

    def to_json(self) -> str:
        """The report as `--json` prints it: one object, with the first issues."""
        numbers = ("shards", "published_shards", "published", "committed", "to_do")
        return json.dumps(
            {
                **{name: getattr(self, name) for name in ("output", "state", "retry", "rows")},
                **self.tables,
                **{name: getattr(self, name) for name in numbers},
                "issue_count": len(self.issues),
                "issues": [dataclasses.asdict(issue) for issue in self.issues[:MAX_ISSUES_SHOWN]],
            }
        )

    def __str__(self) -> str:
        if self.issues:
            more = len(self.issues) - MAX_ISSUES_SHOWN
            lines = [f"  {issue}" for issue in self.issues[:MAX_ISSUES_SHOWN]]
            lines += [f"  and {more:,} more"] if more > 0 else []
            issues = counted(len(self.issues), "issue")
            return "\n".join([f"{self.output} is not as its ledger says, {issues}:", *lines, ADVICE])
        if self.complete:
            others = [name for name in self.tables if name not in ALWAYS]
            further = "".join(f"{self.tables[name]:,} {name.replace('_', ' ')}; " for name in others)
            files = len(self.tables) * self.shards
            return (
                f"{self.output} is complete and verified: {counted(self.rows, 'manifest row')}, each there "
                f"once, {self.tables['labels']:,} in labels and {self.tables['errors']:,} in errors; "
                f"{counted(self.tables['boxes'], 'box', 'boxes')}, as the images' counts say; {further}"
                f"and the {files:,} files are, byte for byte, the ones that were published"
            )
        what, again = (f"retry {self.retry} is", "retry") if self.retry else ("it is", "run")
        return (
            f"{self.output} is verified as far as it goes, but {what} not complete yet: of "
            f"{counted(self.rows, 'row')} {self.published:,} published (in {self.published_shards:,} of "
            f"{counted(self.shards, 'shard')}), {self.committed:,} committed, {self.to_do:,} to do. "
            f"{raylabel_command(again, self.output)} resumes it"
        )


def reconcile_run(output: str, *, as_json: bool) -> bool:
    """Verifies a run by its files, and prints the report.

    Returns:
        Whether it is complete. False: what there is of it is verified, and there is more to do.

    Raises:
        ReconcileError: naming what is not as it must be.
        StorageError: there is no run, or a file cannot be read.
    """
    report = verify_run(output)
    if as_json:
        print(report.to_json())
    if report.issues:
        raise ReconcileError(str(report))
    if not as_json:
        Console(highlight=False, soft_wrap=True).print(printable(f"{report}."), markup=False)
    return report.complete


def verify_run(output: str) -> VerifyReport:
    """Checks a run by its files; again where it was completed, retried or restarted meanwhile.

    Raises:
        StorageError: there is no run, or a file cannot be read.
    """
    snapshot = RunSnapshot.take(output)
    for _ in range(MAX_RETRIES):
        report = _verify(snapshot)
        again = RunSnapshot.take(output)
        if again.state == snapshot.state:
            break
        snapshot = again
    return report


def _verify(whole: RunSnapshot) -> VerifyReport:
    started, issues = _started_shards(whole)
    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        reports = dict(zip(started, pool.map(lambda shard: check_shard(whole, shard), started), strict=True))
    number = 0 if whole.complete else whole.run.retry
    current, shards = whole.passes[number], whole.shards[number]
    published = [shard for shard, report in reports.items() if report.published and shard in shards]
    records = [report.record for report in reports.values() if report.record]
    tables = count_rows(whole.run, records)
    issues += [issue for report in reports.values() for issue in report.issues]
    if whole.success is not None and len(records) == whole.plan.shards:
        issues += _check_success(whole.success, tables)
    return VerifyReport(
        output=clean_uri(whole.run.store.url),
        complete=whole.complete,
        retry=whole.run.retry,
        rows=current.size,
        tables=tables,
        shards=len(shards),
        published_shards=len(published),
        published=sum(len(current.rows_of_shard(shard)) for shard in published),
        committed=sum(report.committed for report in reports.values()),
        issues=tuple(issues),
    )


def _started_shards(whole: RunSnapshot) -> tuple[list[int], list[Issue]]:
    """The shards that have files, or must have, and issues for the files that are no shard's."""
    run, last = whole.run, whole.plan.shards - 1
    started = set(range(whole.plan.shards)) if whole.complete or run.retry else set()
    issues = []
    for table in TABLES:
        for key in run.store.list(table):
            shard = _number(key, 1, ".parquet") if table in run.tables.names else None
            if shard is None or shard > last or key != table_key(table, shard):
                issues.append(Issue(key, "a file that no shard of this run has", "none"))
            else:
                started.add(shard)
    for key in run.list(Shard):
        shard = _number(key, 1, ".json")
        if shard is None or shard > last:
            issues.append(Issue(whole.full_key(key), "a record of no shard of this run", "none"))
        else:
            started.add(shard)
    number = pass_name(run.retry)
    pinned = (_number(key, 2, ".json") for key in run.list(Publication, number))
    committed = (_number(key, 2, "") for key in run.list(Commit, number))
    started.update(shard for shard in (*pinned, *committed) if shard is not None and shard <= last)
    return sorted(started), issues


def _number(key: str, level: int, ending: str) -> int | None:
    return shard_number(key.split("/")[level].removesuffix(ending))


def _check_success(success: bytes, tables: dict[str, int]) -> list[Issue]:
    try:
        marked = from_json(success)
    except ValueError:
        marked = success[:100].decode(errors="replace")
    return [] if marked == tables else [Issue(SUCCESS, str(marked), f"{tables}, as the shards have them")]
