"""The report of a run: one self-contained HTML page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment

from jobs.report import views
from jobs.report.figures import figures_of, rate_figure
from jobs.report.found import Found, find
from jobs.report.pictures import PATIENCE_S, may_pass
from jobs.results.pages import page_environment
from jobs.results.plain import dump_json
from jobs.results.status import retry_command
from jobs.results.text import scored
from jobs.results.writing import whole_file
from schemas.errors import RETRYABLE
from schemas.exceptions import StorageError
from schemas.words import counted, raylabel_command
from workers.printable import printable
from workers.storage.store import Store
from workers.storage.uris import clean_uri

REPORT = "report.html"
"""The report's key in the run's store."""

ENDINGS = (".html", ".htm")
"""Of the files that a report can be written into."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Attributes:
        where: its path or URL.
        size: bytes of it.
        pictures: that it has.
        not_shown: pictures that it lacks, by reason.
    """

    where: str
    size: int
    pictures: int
    not_shown: dict[str, int]

    @property
    def without(self) -> str:
        """What to tell of the pictures that it lacks; "" where it has all."""
        return views.not_shown_in_words(self.not_shown, self.pictures + sum(self.not_shown.values()))

    def to_json(self) -> str:
        """The report for a program; see docs/json.md."""
        values = {"report": self.where, "bytes": self.size, "pictures": self.pictures}
        return dump_json({**values, "not_shown": self.not_shown})


def write_report(
    output: str,
    notes: Mapping[str, str] | None = None,
    into: Path | None = None,
    patience_s: float = PATIENCE_S,
) -> Report:
    """Writes the report of a run; photos that cannot be read are left out.

    Args:
        output: the run directory; a path or any fsspec URL.
        notes: name and value of further lines about the run.
        into: the file to write; None: report.html in the run directory.
        patience_s: seconds in which photos are read; 0: it gets no pictures.

    Raises:
        SpecError: the file's ending is none of `ENDINGS`.
        StorageError: there is no run, or the page cannot be written.
        DamagedFileError: a file of it is damaged.
    """
    if into is None:
        store, found = Store(output), find(output, notes or {}, patience_s)
        size = _write(found, lambda html: store.write(REPORT, html))
        where = f"{clean_uri(store.url)}/{REPORT}"
    elif into.is_dir():
        raise StorageError(f"{into} is a folder; name a file in it")
    else:
        with whole_file(into, ENDINGS) as file:  # a name that cannot be written is found before all else
            found = find(output, notes or {}, patience_s)
            size = _write(found, file.write_bytes)
        where = str(into)
    return Report(where, size, found.pictures, found.not_shown)


def _write(found: Found, write: Callable[[bytes], object]) -> int:
    """Writes the page; its bytes."""
    html = render_html(found).encode()
    write(html)
    return len(html)


def make_report(output: str, into: Path | None, patience_s: float, *, as_json: bool) -> None:
    """Writes the report of a run and prints where it is; see `write_report`."""
    report = write_report(output, into=into, patience_s=patience_s)
    if as_json:
        print(report.to_json())
        return
    size, pictures = views.format_bytes(report.size), counted(report.pictures, "picture")
    print(printable(f"report: {report.where} ({size}, {pictures})"))
    if report.not_shown:
        print(printable(f"note: {report.without}"))


def render_html(found: Found) -> str:
    """The HTML of a report. It loads nothing, runs no script, and escapes all values."""
    template = _environment().get_template("report.html.j2")
    facts, record = found.facts, found.record
    return template.render(
        output=found.output,
        record=record,
        unfinished=found.unfinished,
        now=found.now,
        tiles=list(views.tiles(found)),
        figures=figures_of(facts),
        files=views.files(facts),
        galleries=list(views.galleries(found)),
        pictures=found.pictures,
        not_shown=views.not_shown_in_words(found.not_shown, len(found.taken)),
        may_pass=any(map(may_pass, found.not_shown)),
        errors=facts.summary.errors,
        failures=facts.summary.failures,
        failed=facts.summary.failed,
        retry=retry_command(found.output, facts.summary.failed_by_code).strip("`"),
        again=raylabel_command("report", found.output).strip("`"),
        RETRYABLE=RETRYABLE,
        rate=facts.rate,
        speed=rate_figure(facts.rate) if facts.rate else None,
        history=found.history,
        phases=[(name, views.took(seconds)) for name, seconds in found.history.phases(facts.rate)],
        models={name: list(views.model(model)) for name, model in record.models.items()},
        settings=list(views.settings(record)),
        manifest=list(views.manifest(record)),
        notes=found.notes,
    )


def _environment() -> Environment:
    """The templates of the report."""
    environment = page_environment("jobs.report")
    environment.filters |= {"scored": lambda pair: scored(*pair), "took": views.took}
    environment.filters["breakable"] = views.breakable
    return environment
