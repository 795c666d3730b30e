import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from jobs.search import build
from jobs.search.build import make_index
from jobs.search.index import About
from jobs.search.searcher import Searcher
from schemas.exceptions import DamagedFileError, OutputConflictError, ReconcileError, StorageError
from tests.jobs.exports.made_run import MODELS, write_run
from tests.jobs.results.test_datasets import begun, publish
from tests.jobs.search.plain import images_of
from tests.workers.tables.made_results import PLAN, resolved


def rows_of(file: str, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(file, read_only=True) as database:
        rows: list[tuple[object, ...]] = database.execute(query).fetchall()
    return rows


@pytest.mark.parametrize("min_label_score", [0.1, 0.2])
def test_it_holds_what_each_image_has(tmp_path: Path, min_label_score: float) -> None:
    output = write_run(tmp_path)
    about, file = make_index(output, min_label_score=min_label_score)
    assert (about.labelled, about.failed, about.taggers) == (8, 1, ("scene",))
    assert file == f"{output}/search.duckdb"
    expected = {
        (row, kind, name): (max(score for score, _ in found), len(found) if kind == "class" else None)
        for row, image in images_of(output, min_label_score).items()
        for (kind, name), found in image.found.items()
    }
    query = """
        SELECT image, CASE kind WHEN 'tag' THEN 'tagger.' || tagger ELSE kind END, name, score, count
        FROM found JOIN terms USING (term)
    """
    found = {(row, kind, name): (score, count) for row, kind, name, score, count in rows_of(file, query)}
    assert found == expected
    labels = {name for _, kind, name in expected if kind == "label"}
    assert labels == ({"palace", "cat"} if min_label_score == 0.1 else {"palace"})
    boxes = rows_of(file, "SELECT image, name, x1, y1, x2, y2 FROM objects JOIN terms USING (term)")
    assert (0, 'a "big" <cat> & dog', 20.5, 10.25, 120.5, 90.75) in boxes
    assert len(boxes) == 8
    assert rows_of(file, "FROM failures") == [(5, "decode", "it ends early")]


def test_an_index_is_made_and_read_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "odd? #1%3F [x] 'ü'" / "run"
    folder.mkdir(parents=True)
    output = write_run(folder)
    _, file = make_index(output)
    assert file == f"{output}/search.duckdb"
    with Searcher(output) as searcher, searcher.search("person") as hits:
        assert hits.total == 3
    assert make_index(output)[1] == file  # again, over the first
    assert not [path.name for path in Path(output).iterdir() if path.name.startswith(".search")]


def test_a_term_that_no_image_has_is_known(tmp_path: Path) -> None:
    _, file = make_index(write_run(tmp_path))
    counts = rows_of(file, "SELECT name, images FROM terms WHERE kind = 'class' ORDER BY term")
    assert counts == [
        *[("__background__", 0), ("person", 3), ('a "big" <cat> & dog', 2), ("naïve, café", 2), ("N/A", 0)],
        *[("v1.5 cup", 1), ("never seen", 0)],
    ]


def test_columns_of_the_manifest_keep_their_types_and_nested_ones_are_text(tmp_path: Path) -> None:
    stamp = datetime(2024, 5, 17, 12, 30, tzinfo=UTC)
    further = {
        "big": pa.array([2**64 - 1 - n for n in range(9)], pa.uint64()),
        "price": pa.array([Decimal(n) / 4 for n in range(9)], pa.decimal128(10, 2)),
        "taken": pa.array([stamp.replace(day=n + 1) for n in range(9)], pa.timestamp("us", "UTC")),
        "flagged": pa.array([n % 2 == 0 for n in range(9)]),
        "words": pa.array([["a", f"b{n}"] for n in range(9)]),
        "image": pa.array([f"mine {n}" for n in range(9)]),
        "a.b c": pa.array([n / 2 for n in range(9)], pa.float64()),
    }
    output = write_run(tmp_path, further=further)
    make_index(output)
    with Searcher(output) as searcher:
        for query, rows in {
            "big=18446744073709551615": [0],
            "big<18446744073709551609": [7, 8],
            "price>=1.75": [7, 8],
            "price=0.25": [1],
            "taken>=2024-05-08": [7, 8],
            "taken=2024-05-03T12:30": [2],
            "taken<2024-05-02T12:30:01": [0, 1],
            "taken=2024-05": [0, 1, 2, 3, 4, 6, 7, 8],
            "flagged": [0, 2, 4, 6, 8],
            "flagged=no": [1, 3, 7],
            "-flagged": [1, 3, 7],
            "words~b7": [7],
            'image="mine 3"': [3],
            '"a.b c">3.4': [7, 8],
            'column:image="mine 4"': [4],
        }.items():
            with searcher.search(query) as hits:
                assert [hit.manifest_index for hit in hits.first(9, sort="row")] == rows, query


def test_a_name_that_a_model_has_twice_is_one_term(tmp_path: Path) -> None:
    twice = resolved("guess", "classifier", ("palace", "cat", "palace"), "tags")
    _, file = make_index(write_run(tmp_path, {**MODELS, "classifier": twice}))
    terms = rows_of(file, "SELECT name, images FROM terms WHERE kind = 'label'")
    assert terms == [("palace", 8), ("cat", 8)]


def test_tables_with_names_that_the_runs_models_do_not_have_are_refused(tmp_path: Path) -> None:
    other = resolved("guess", "classifier", ("palace", "dog"), "tags")
    output = write_run(tmp_path, {**MODELS, "classifier": other})
    with pytest.raises(ReconcileError, match=r"name a class, label or tag .* run\.json do not have"):
        make_index(output)


@pytest.mark.parametrize("models", [{"detector"}, {"classifier"}, {"embedder"}, {"taggers.scene"}])
def test_a_run_of_some_models_is_found_by_what_they_say(tmp_path: Path, models: set[str]) -> None:
    output = write_run(tmp_path, {name: MODELS[name] for name in models})
    make_index(output)
    with Searcher(output) as searcher:
        kinds = {term.kind for term in searcher.vocabulary.terms}
        with searcher.search("width>=100 at<2026-01-05") as hits:
            assert [hit.manifest_index for hit in hits.first(9)] == [0, 1, 2, 3]
    expected = {"detector": {"class"}, "classifier": {"label"}, "taggers.scene": {"tag"}, "embedder": set()}
    assert kinds == expected[models.pop()]


def test_what_is_published_of_an_unfinished_run_is_found(output: str) -> None:
    run = begun(output)
    about, _ = make_index(output)
    assert (about.labelled, about.failed) == (0, 0)
    with Searcher(output) as searcher, searcher.search("person") as hits:
        assert (hits.total, hits.first(5), hits.facets()) == (0, [], {})
    publish(run, 1)
    about, _ = make_index(output)
    rows = PLAN.rows_of_shard(1)
    assert about.labelled + about.failed == len(rows)
    with Searcher(output) as searcher, searcher.search("-error:NOT_FOUND") as hits:
        assert {hit.manifest_index for hit in hits.first(50)} == set(rows)


def test_the_index_of_a_bucket_is_put_there_and_copied_once(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = begun(output)
    publish(run, 0)
    _, name = make_index(output)
    assert run.store.sizes("")["search.duckdb"] > 1000
    Searcher(output).close()
    copies = list((tmp_path / "cache").rglob("*.duckdb"))
    assert len(copies) == (0 if run.store.is_local else 1)
    publish(run, 1, 2)
    make_index(output)
    with Searcher(output) as searcher, searcher.search("") as hits:
        assert hits.total == searcher.about.labelled > 20
    assert name.endswith("/search.duckdb")
    assert len(list((tmp_path / "cache").rglob("*"))) <= 4


def test_what_cannot_be_made_leaves_the_old_index(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    publish(run, 0, 1)
    make_index(str(tmp_path))
    before = (tmp_path / "search.duckdb").read_bytes()
    run.store.write("boxes/shard-00001.parquet", b"PAR1")
    with pytest.raises(DamagedFileError, match=r"boxes/shard-00001\.parquet is damaged"):
        make_index(str(tmp_path))
    assert (tmp_path / "search.duckdb").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_run_that_changes_meanwhile_gets_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(str(tmp_path))
    publish(run, 0)
    real = build._Builder.build

    def published(builder: build._Builder, state: str) -> About:
        publish(run, 1)
        return real(builder, state)

    monkeypatch.setattr(build._Builder, "build", published)
    with pytest.raises(OutputConflictError, match="changed while its index was made; nothing is written"):
        make_index(str(tmp_path))
    assert not (tmp_path / "search.duckdb").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    with pytest.raises(StorageError, match=r"cannot write .*no/x\.duckdb: there is no folder"):
        make_index(output, tmp_path / "no" / "x.duckdb")


def test_a_disk_that_is_full_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    make_index(output)
    before = Path(output, "search.duckdb").read_bytes()
    with files_up_to(4096), pytest.raises(StorageError, match=r"a file could not be written: \w"):
        make_index(output)
    assert Path(output, "search.duckdb").read_bytes() == before
    assert [path.name for path in Path(output).iterdir() if path.name.startswith(".")] == []


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_another_database_is_not_replaced_by_an_index(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    mine = tmp_path / "mine.duckdb"
    with duckdb.connect(str(mine)) as database:
        database.execute("CREATE TABLE precious AS SELECT 42 AS n")
    with pytest.raises(StorageError, match=r"mine\.duckdb: it exists, and is no index that can be read"):
        make_index(output, mine)
    assert rows_of(str(mine), "FROM precious") == [(42,)]
    mine.unlink()
    make_index(output, mine)
    make_index(output, mine)  # an index is
    (tmp_path / "run" / "search.duckdb").write_bytes(b"damaged")
    make_index(output)  # as what is beside the tables is
