"""Seconds and memory of the report of a run.

    python -m tests.benchmarks.large_run FOLDER --images 10000000
    python -m tests.benchmarks.report FOLDER

The report goes into a file that is deleted. The photos of a made-up run are nowhere: what reading them takes
depends on their store, and is little more than `--patience`.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from jobs.report.page import Report, write_report


def measure(output: str, patience_s: float) -> tuple[Report, float, float]:
    """The report of a run, the seconds it took, and the most memory of this process in MB."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        report = write_report(output, into=Path(folder) / "report.html", patience_s=patience_s)
        seconds = time.monotonic() - began
    return report, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints what the report of a run takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--patience", type=float, default=0, help="seconds for reading photos")
    options = parser.parse_args()
    report, seconds, megabytes = measure(options.folder, options.patience)
    print(
        f"{seconds:.1f} s, {megabytes:,.0f} MB of memory: a page of {report.size / 1e6:.2f} MB with "
        f"{report.pictures} pictures"
    )


if __name__ == "__main__":
    main()
