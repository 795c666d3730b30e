"""The pages for users against the code: what they name exists, and what exists is named."""

import inspect
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
import torch
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import raylabel
from jobs.cluster.jobs_api import Submission
from jobs.cluster.submitted import as_dict
from jobs.exports.command import Exported
from jobs.plan.probe import Probe
from jobs.report.page import Report
from jobs.results.status import Progress, Status
from jobs.results.summary import Summary
from jobs.run import console
from jobs.run.accuracy import PredictionAccuracy
from jobs.verify.checks import Issue
from jobs.verify.reconcile import VerifyReport
from schemas.errors import ErrorCode, Stage
from schemas.metrics import METRICS, STAGES
from schemas.models import Explanation, ModelInfo
from schemas.plan import Plan
from schemas.prediction import Cluster, Costs, Prediction
from schemas.spec import JobSpec
from schemas.spec_file import build_spec
from schemas.tables import FACTS_OF, LABEL, TABLES, TOPK, fact_fields
from schemas.tasks import ClassifierSpec, DetectorSpec
from tests import cli_page
from tests.notebook import NOTEBOOK, pictures, recorded
from tests.workers.tables.made_results import CLASSIFIER, RUN_TABLES, outcome, record, results_of, rows_of
from workers.models.registry import load
from workers.tables.parquet import parquet_bytes
from workers.tables.results import results_table, split_results

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "infra/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = (
    "README.md",
    *(f"docs/{name}.md" for name in ("spec", "tables", "metrics", "models", "json", "python")),
)
README, SPEC, TABLES_PAGE, METRICS_PAGE, MODELS_PAGE, JSON_PAGE, PYTHON_PAGE = (
    (ROOT / name).read_text(encoding="utf-8") for name in NAMES
)

MAX_WORDS = 120
"""Words in a paragraph that a newcomer still reads."""

TYPE_NAMES = {
    LABEL: "dictionary of string",
    pa.float32(): "float32",
    pa.list_(pa.float32()): "list of float32, of fixed size",
    TOPK: "list of struct (label_id int32, label string, score float32)",
    pa.map_(pa.string(), pa.int32()): "map of string to int32",
}
"""How docs/tables.md writes the types whose Arrow name is no reading matter."""


def blocks(page: str, language: str) -> list[str]:
    """The fenced code of one language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def table_rows(text: str) -> list[list[str]]:
    """The cells of a text's Markdown tables, those of the first column without backticks."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [[first.strip("`"), *others] for first, *others in cells]


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next of its own or a higher level."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n", page, re.MULTILINE)
    assert found, f"no heading {heading!r}"
    rest = page[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


PLACES = {"storage": "URL.", "taggers": "NAME."}
"""Sections with any number of others, and what the docs have for the name of one."""

OF_ANY_MODEL = {"input": "MODEL.input."}
"""Sections that all models have, and what the docs have for them."""


def keys_of(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of the job spec that takes a value of its own, by dotted path."""
    for name, field in model.model_fields.items():
        values = get_args(field.annotation)[1:] if name in PLACES else (field.annotation,)
        options = [part for value in values for part in (value, *get_args(value))]
        inner = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        one_of_several = any(get_origin(option) in {Annotated, Literal} for option in options)
        if inner and (name in PLACES or not one_of_several):
            yield from keys_of(inner[0], OF_ANY_MODEL.get(name) or f"{path}{name}.{PLACES.get(name, '')}")
        else:
            yield f"{path}{name}", field


def as_yaml(field: FieldInfo) -> str:
    """A key's default as docs/spec.md writes it."""
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return f"`{yaml.safe_dump(default, default_flow_style=True).splitlines()[0]}`"


def choices(annotation: object) -> set[str]:
    """The words that a key may be set to."""
    if isinstance(annotation, str):
        return {annotation}
    return {word for option in get_args(annotation) for word in choices(option)}


def test_every_command_has_help_and_a_place_in_the_readme() -> None:
    commands = cli_page.commands()
    assert set(commands) == set(re.findall(r"^    (?:\S+=\S* )?raylabel (\w+)", README, re.MULTILINE))
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, f"{name}: {parameter.name}"


def test_the_command_lines_page_is_what_the_command_line_says() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == cli_page.page(), "run `python -m tests.cli_page > docs/cli.md` and read the difference"


def test_every_option_of_every_command_is_on_the_command_lines_page() -> None:
    for name, command in cli_page.commands().items():
        rows = table_rows(section(cli_page.page(), f"raylabel {name}"))
        documented = [
            option for first, *_ in rows for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", first)
        ]
        existing = [option for it in command.params for option in it.opts if option.startswith("-")]
        assert sorted(documented) == sorted(existing), name


def test_every_exit_code_has_a_meaning() -> None:
    assert cli_page.MEANINGS.keys() == cli_page.exit_codes()


def test_every_key_of_the_job_spec_is_documented_with_its_default_and_choices() -> None:
    rows = {row[0]: row for row in table_rows(SPEC) if len(row) == 4 and row[0] != "key"}
    keys = dict(keys_of(JobSpec))
    assert {key: row[2] for key, row in rows.items()} == {key: as_yaml(field) for key, field in keys.items()}
    for key, field in keys.items():
        missing = choices(field.annotation) - set(re.findall(r"`([\w-]+)`", rows[key][1]))
        assert not missing, f"{key}: {missing}"


@pytest.mark.parametrize("name", TABLES)
def test_every_column_is_documented_in_order_with_its_type_and_whether_it_can_be_null(name: str) -> None:
    rows = table_rows(section(TABLES_PAGE, name).partition("###")[0])
    documented = [tuple(row[:3]) for row in rows if row[0] != "column"]
    assert documented == [
        (field.name, TYPE_NAMES.get(field.type, str(field.type)), "yes" if field.nullable else "no")
        for field in TABLES[name].schema
    ]


def test_every_column_of_facts_is_documented_in_order_with_its_type_and_whether_it_can_be_null() -> None:
    part = TABLES_PAGE.partition("### Columns of facts\n")[2].partition("\n##")[0]
    documented = [tuple(row[:3]) for row in table_rows(part) if row[0] != "column"]
    assert documented == [
        (field.name, str(field.type), "yes" if field.nullable else "no") for field in fact_fields(FACTS_OF)
    ]


def test_every_metric_is_documented_as_prometheus_sees_it() -> None:
    rows = [row for row in table_rows(METRICS_PAGE) if len(row) == 5 and row[0] != "metric"]
    assert rows == [
        [each.name, each.kind, each.unit, ", ".join(f"`{label}`" for label in each.labels), each.help]
        for each in METRICS
    ]
    (sentence,) = re.findall(r"^Stages: [^.]*\.", METRICS_PAGE, re.MULTILINE)
    assert re.findall(r"`(\w+)`", sentence) == list(STAGES)


def test_every_error_code_is_documented_and_whether_it_is_retryable() -> None:
    rows = table_rows(section(TABLES_PAGE, "Error codes"))[1:]
    assert {code: retryable for code, retryable, _ in rows} == {
        code.value: "yes" if code.retryable else "no" for code in ErrorCode
    }


def test_troubleshooting_has_every_error_code_with_its_cause_and_what_to_do() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = table_rows(section(page, "By error code"))[1:]
    assert {code: retryable for code, retryable, *_ in rows} == {
        code.value: "yes" if code.retryable else "no" for code in ErrorCode
    }
    assert all(len(row) == 5 and all(row) for row in rows)


def test_every_stage_is_documented() -> None:
    (sentence,) = re.findall(r"^Stages: [^.]*\.", TABLES_PAGE, re.MULTILINE)
    assert re.findall(r"`(\w+)`", sentence) == [stage.value for stage in Stage]


def json_examples(heading: str) -> list[dict[str, Any]]:
    """The objects of a command's example on the JSON page."""
    (text,) = blocks(section(JSON_PAGE, heading), "json")
    found = [json.loads(line) for line in text.splitlines()]
    return found[0] if isinstance(found[0], list) else found


def fields(kind: Any) -> set[str]:
    return set(kind.__dataclass_fields__)


MOMENT = datetime(2026, 11, 28, tzinfo=UTC)
PREDICTED = {
    *fields(Prediction),
    *("output", "probe", "advice", "cpu_hours", "gpu_hours", "cost", "within", "saved"),
}
"""The keys of `raylabel plan --json`."""
PRINTED: dict[str, set[str]] = {
    "check": {"state", "spec", "manifest", "output", "classifier", "detector", "first image"},
    "plan": PREDICTED,
    "status": set(
        json.loads(
            Status("out", "running", None, None, None, Progress(1, 0, {}, 1, 0), None, MOMENT).to_json()
        )
    ),
    "reconcile": set(
        json.loads(
            VerifyReport(
                *("out", True, 0, 1, {"labels": 1, "boxes": 0, "errors": 0}, 1, 1, 1, 0, ())
            ).to_json()
        )
    ),
    "show": set(json.loads(Summary("out", 0, 0, None, (), (), 0, (), 0, (), (), ()).to_json())),
    "report": set(json.loads(Report("report.html", 1, 0, {}).to_json())),
    "export": fields(Exported),
    "jobs": {*as_dict(Submission("id", "RUNNING", "", None, {}, MOMENT, None)), "last_log_line"},
    "models": set(ModelInfo.model_fields),
    "models --describe": set(Explanation.model_fields),
}
"""What each command prints with --json, by the code that prints it."""


@pytest.mark.parametrize("heading", PRINTED)
def test_the_json_of_a_command_is_documented_key_by_key_with_an_example(heading: str) -> None:
    (example,) = json_examples(heading)
    assert set(example) == PRINTED[heading]
    text = section(JSON_PAGE, heading)
    documented = {key for row in table_rows(text) for key in re.findall(r"[\w ]+", row[0])}
    assert PRINTED[heading] <= documented


def test_the_parts_of_the_json_are_those_of_the_code() -> None:
    (plan,), (verified,) = json_examples("plan"), json_examples("reconcile")
    assert set(plan["probe"]) == {*fields(Probe), "rows"}
    assert set(plan["probe"]["costs"]) == fields(Costs)
    assert set(plan["cluster"]) == fields(Cluster)
    assert set(verified["issues"][0]) == fields(Issue)
    events = {it["event"]: it for it in json_examples("run and retry")}
    assert set(events["progress"]) == {"event", *fields(console.ProgressEvent)}
    accuracy = PredictionAccuracy(1.0, 1.0, Cluster(1, 1), 1.0, 1.0, {})
    assert set(events["complete"]["predicted"]) == set(accuracy.to_dict())


@pytest.mark.parametrize("text", [*blocks(README, "yaml"), *blocks(SPEC, "yaml")])
def test_every_job_spec_on_the_pages_is_one_that_can_run(text: str) -> None:
    build_spec(yaml.safe_load(text), "the page")


def test_the_defaults_of_the_pages_are_the_specs() -> None:
    smallest = build_spec(yaml.safe_load(blocks(README, "yaml")[0]), "the page")
    assert (smallest.classifier, smallest.detector) == (ClassifierSpec(), DetectorSpec())
    assert f"`{ClassifierSpec().model}`, `{DetectorSpec().model}` | the built-in" in MODELS_PAGE


def test_the_readmes_model_of_ones_own_tells_sky_from_other_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source,) = (text for text in blocks(README, "python") if "ClassifierModel" in text)
    (name,) = set(re.findall(r"--classifier (\w+:\w+)", README))
    module = name.partition(":")[0]
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, module, raising=False)  # of another test's folder
    loaded = load(ClassifierSpec(model=name))
    blue, red = torch.zeros(3, 30, 40, dtype=torch.uint8), torch.zeros(3, 20, 10, dtype=torch.uint8)
    blue[2], red[0] = 255, 255
    logits = loaded.model.module(torch.stack([loaded.model.transform(image) for image in (blue, red)]))
    assert [loaded.model.categories[i] for i in logits.argmax(dim=1).tolist()] == ["sky", "other"]


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tables of 12 images at the places that the pages' queries read, and the way there.

    In the second run no image fails.
    """
    for run in ("today", "tomorrow"):
        results = results_of(Plan(rows=12, unit_rows=12, shard_units=1), 0, cured=run == "tomorrow")
        for name, table in split_results(results, RUN_TABLES, run).items():
            path = tmp_path / "runs" / run / name / "shard-00000.parquet"
            path.parent.mkdir(parents=True)
            path.write_bytes(parquet_bytes(table, name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("run_directory")
def test_the_queries_of_the_pages_answer() -> None:
    (query,), (text, _, similar) = blocks(README, "sql"), blocks(TABLES_PAGE, "sql")
    assert duckdb.sql(query).fetchall() == [("person", 6, 6), ("boat", 3, 3)]
    found = [duckdb.sql(query) for query in text.split(";") if query.strip()]
    objects, people, failures, joined, runs, changed = found
    assert objects.fetchall() == [("person", 6, 6), ("boat", 3, 3)]
    assert people.columns == ["uri", "label", "score", "people"]
    assert [row[3] for row in people.fetchall()] == [1] * 6
    assert [row[:4] for row in failures.fetchall()] == [("decode", "TRUNCATED", False, 3)]
    assert joined.columns == ["uri", "label", "class_name", "score"]
    assert len(joined.fetchall()) == 9
    assert runs.fetchall() == [
        *[("today", "person", 6), ("today", "boat", 3), ("tomorrow", "person", 8), ("tomorrow", "boat", 4)]
    ]
    assert changed.fetchall() == []  # both see the same in an image
    assert [similarity for _, similarity in duckdb.sql(similar).fetchall()] == [
        5.25
    ] * 5  # made ones are alike


def test_the_macro_of_the_tables_page_counts_0_where_a_detector_found_none(run_directory: Path) -> None:
    without = [outcome(n, [CLASSIFIER]) for n in (12, 13)]
    results = results_table(0, rows_of(range(12, 14)), without, RUN_TABLES)
    labels = parquet_bytes(split_results(results, RUN_TABLES, "run")["labels"], "labels")
    (run_directory / "runs" / "today" / "labels" / "shard-00001.parquet").write_bytes(labels)
    table = "FROM 'runs/today/labels/*.parquet'"
    with duckdb.connect() as database:
        assert database.sql(f"{table} WHERE class_counts['person'] = 0").fetchall() == []
        create, query = blocks(TABLES_PAGE, "sql")[1].strip().removesuffix(";").split(";")
        database.sql(create)
        assert database.sql(query).fetchall() == [(f"s3://bucket/{n}.jpg", 0) for n in (0, 6, 9)]
        counts = f"SELECT manifest_index, class_count(class_counts, 'person') AS people {table}"
        known = {2: 1, 4: 1, 1: 1, 5: 1, 8: 1, 10: 1, 0: 0, 6: 0, 9: 0, 12: None, 13: None}
        assert dict(database.sql(counts).fetchall()) == known


@pytest.mark.usefixtures("run_directory")
def test_the_readmes_pandas_lines_run() -> None:
    (source,) = (text for text in blocks(README, "python") if "pandas" in text)
    found: dict[str, Any] = {}
    exec(source, found)
    assert isinstance(found["boxes"], pd.DataFrame)
    assert found["boxes"]["area"].between(0, 1, inclusive="right").all()
    assert len(found["large"]) == sum(found["boxes"]["area"] > 0.5)


def test_every_example_of_the_python_page_is_python_and_reads_what_it_says(run_directory: Path) -> None:
    (run_directory / "runs" / "today" / "run.json").write_bytes(record().to_json())
    first, read, stopped = (text for text in blocks(PYTHON_PAGE, "python"))
    found: dict[str, Any] = {"run": raylabel.open_run("runs/today")}
    exec(read, found)
    assert Counter(found["sure"]["class_name"].to_pylist()) == {"person": 6, "boat": 3}
    assert found["frequent"].to_dict("list") == {"class_name": ["person", "boat"], "n": [6, 3]}
    for text in (first, stopped):
        compile(text, "the page", "exec")


def test_every_method_and_argument_in_python_is_documented() -> None:
    documented = set(re.findall(r"`(\w+)\(", PYTHON_PAGE))
    assert {
        name for name in vars(raylabel.Run) if not name.startswith("_") and name != "output"
    } == documented
    rows = {row[0] for row in table_rows(section(PYTHON_PAGE, "label"))} - {"argument"}
    assert {"job", *rows} == set(inspect.signature(raylabel.label).parameters)


def test_the_notebook_is_saved_with_its_outputs_and_nothing_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = [cell for cell in recorded().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert len(pictures(cells)) >= 3
    assert len(text) < 1_000_000, "show smaller pictures"
    assert re.findall(r"[\"' (](/(?:home|root|tmp|work|usr|Users)/[^ \"]*)", text) == []


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be linked to by, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" in link:
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), f"{link} leaves the project"
        assert target.exists(), f"{link} leads nowhere"
        assert not fragment or fragment in anchors(target), f"{link}: no such heading"


def test_the_make_targets_and_the_python_version_of_the_readme_are_real() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^    make ([\w-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"Python {project['requires-python'].removeprefix('>=')} or later" in README


def paragraphs(page: str) -> Iterator[str]:
    """The paragraphs of a page, list items one by one; no code, no tables, no headings."""
    text = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(\||#| {4,}\S).*$", "", text, flags=re.MULTILINE)
    yield from re.split(r"\n\s*\n|\n\s*(?=[-*] |\d+\. )", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_paragraph_is_too_long_to_read(page: Path) -> None:
    found = list(paragraphs(page.read_text(encoding="utf-8")))
    assert found
    assert [text for text in found if len(text.split()) > MAX_WORDS] == []
