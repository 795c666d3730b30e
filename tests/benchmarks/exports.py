"""What each format of `raylabel export` costs: seconds, memory at the peak, bytes written.

    python -m tests.benchmarks.exports RUN [--formats coco,yolo] [--limit 1000000]

RUN is a run directory, such as one of `tests.benchmarks.large_run`; photos are not copied. Each format has a
process of its own, and its files are deleted after it. A format whose package is missing is passed over.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jobs.exports.command import ExportOptions, export_run
from jobs.exports.registry import FORMATS
from schemas.exceptions import SpecError


def measure(run: str, name: str, limit: int | None) -> dict[str, object]:
    """Exports a run in this process."""
    with tempfile.TemporaryDirectory(prefix="exports-") as folder:
        began = time.monotonic()
        try:
            done = export_run(run, name, Path(folder) / "out.lance", ExportOptions(limit=limit))
        except SpecError as error:
            return {"format": name, "passed over": str(error)}
        seconds = time.monotonic() - began
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "format": name,
            "images": done.images,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_mb": used.ru_maxrss // 1024,
            "files": len(files),
            "mb": round(sum(path.stat().st_size for path in files) / 1e6),
        }


def main() -> None:
    """Prints a line of JSON for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args()
    for name in options.formats.split(","):
        if options.here:
            print(json.dumps(measure(options.run, name, options.limit)), flush=True)
            continue
        arguments = [options.run, "--formats", name, "--here"]
        arguments += ["--limit", str(options.limit)] if options.limit else []
        subprocess.run([sys.executable, "-m", __spec__.name, *arguments], check=True)


if __name__ == "__main__":
    main()
