"""How long a run of ten million rows takes to go on when 9.9 million are committed, and in what memory.

    python -m tests.benchmarks.resume [FOLDER OR S3 URL]

Each case is a real manifest and a real ledger, written without labelling; then `raylabel run --json` is
started as a user does, timed to its first progress event (the ledger is read), and stopped.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fsspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.prepare.resolve import resolve
from schemas.ledger import Commit, Shard, StagedFile
from schemas.plan import Plan
from schemas.ranges import to_ranges
from schemas.spec_file import build_spec
from schemas.tables import ALWAYS
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import begin_run
from workers.ledger.state import MERGE_AT
from workers.manifest.open import open_manifest
from workers.storage.store import Store

ROWS = 10_000_000
COMMITTED = 0.99
CASES = {"published, shards of 100,000": 100_000, "committed only, one shard": ROWS}


def main() -> None:
    """Prints one line a case."""
    with tempfile.TemporaryDirectory() as folder:
        base = sys.argv[1] if len(sys.argv) > 1 else folder
        manifest = f"{base}/manifest.parquet"
        write_manifest(manifest)
        for number, (name, shard_rows) in enumerate(CASES.items()):
            output = f"{base}/out-{number}"
            run = begin(manifest, output, shard_rows)
            entries = commit(run)
            seconds, megabytes = resume(manifest, output, shard_rows)
            print(f"{name}: {entries:,} entries; {seconds:.1f} s, {megabytes:.0f} MB", flush=True)


def write_manifest(url: str) -> None:
    """Ten million URIs in one Parquet file."""
    with fsspec.open(url, "wb") as file, pq.ParquetWriter(file, pa.schema([("uri", pa.string())])) as writer:
        for start in range(0, ROWS, 1_000_000):
            names = [f"s3://photos/{row:010d}.jpg" for row in range(start, start + 1_000_000)]
            writer.write_table(pa.table({"uri": names}), row_group_size=65_536)


def spec_of(manifest: str, output: str, shard_rows: int) -> dict[str, object]:
    """The job, as the command below asks for it."""
    return {"manifest": manifest, "output": output, "detector": None, "units": {"shard_rows": shard_rows}}


def begin(manifest: str, output: str, shard_rows: int) -> RunDirectory:
    """The run's record, as a first attempt makes it."""
    job = resolve(build_spec(spec_of(manifest, output, shard_rows), "the benchmark"))
    store = Store(output)
    opened = open_manifest(job.spec.manifest, job.sources, store, lambda *_: [])
    record = begin_run(store, job.record(opened))
    return RunDirectory.first(store, record, opened.carried)


def commit(run: RunDirectory) -> int:
    """The records of all but the last units, and how many they are: shards as published, the rest merged."""
    plan = run.plan
    done = int(plan.units * COMMITTED)
    published = [shard for shard in range(plan.shards) if plan.units_of_shard(shard).stop <= done]
    for shard in published:
        rows = len(plan.rows_of_shard(shard))
        files = {name: staged(f"{name}/{shard}.parquet", rows) for name in ALWAYS}
        record = Shard(shard=shard, retry=0, files=files, failed={}, errors={})
        run.ledger.write(record.key, record.to_json())
    first = plan.units_of_shard(published[-1]).stop if published else 0
    groups = [range(start, min(start + MERGE_AT, done)) for start in range(first, done, MERGE_AT)]
    entries = [entry_of(plan, group) for group in groups[:-1]]
    entries += [entry_of(plan, range(unit, unit + 1)) for unit in groups[-1]]
    for entry in entries:
        run.ledger.create(entry.key, entry.to_json())
    return len(published) + len(entries)


def entry_of(plan: Plan, units: range) -> Commit:
    """The commit entry of some units, with a staged file of each table a unit."""
    files = {name: [staged(f"parts/000/shard-00000/{u:09d}.{name}", 150) for u in units] for name in ALWAYS}
    return Commit(
        attempt=1,
        retry=0,
        shard=plan.shard_of(units.start),
        units=to_ranges(units),
        files=files,
        failed={"NOT_FOUND": len(units)},
    )


def staged(key: str, rows: int) -> StagedFile:
    """A file's entry as long as a real one."""
    return StagedFile(key=f"{key}-0123456789ab.parquet", rows=rows, size=10_000, sha256="0" * 64)


def resume(manifest: str, output: str, shard_rows: int) -> tuple[float, float]:
    """Seconds from the command to its first progress event, and the driver's most megabytes until then."""
    command = [str(Path(sys.executable).parent / "raylabel"), "run", "--manifest", manifest]
    command += ["--output", output, "--detector", "none", "--set", f"units.shard_rows={shard_rows}", "--json"]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "progress":
            seconds = time.monotonic() - began
            peak = Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
            assert event["done"] >= ROWS * COMMITTED * 0.999
            break
    psutil.Process(process.pid).terminate()
    process.communicate()
    return seconds, int(peak) / 1024


if __name__ == "__main__":
    main()
