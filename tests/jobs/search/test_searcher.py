import math
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.search.build import make_index
from jobs.search.command import SearchOptions, search_run
from jobs.search.hits import Match
from jobs.search.language import quoted
from jobs.search.searcher import Searcher
from jobs.search.vocabulary import Column, Term, Vocabulary
from schemas.exceptions import OutputConflictError, QueryError, SpecError, StorageError
from schemas.ledger import SUCCESS
from tests.benchmarks.large_run import write_large_run
from tests.jobs.exports import made_run
from tests.jobs.exports.made_run import LABELLED, MODELS, write_run
from tests.jobs.results.test_datasets import begun, publish
from tests.jobs.search import plain
from tests.jobs.search.plain import Holds, Image, images_of
from tests.workers.tables.made_results import record, resolved
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import begin_run
from workers.storage.store import Store

ALL_KINDS = ("class", "label", "tagger.scene")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("large"))
    write_large_run(output, 3000, shard_rows=1000)
    make_index(output)
    return output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run with odd names, tags and failed images."""
    output = write_run(tmp_path_factory.mktemp("made"))
    make_index(output)
    return output


def rows_of(searcher: Searcher, query: str, sort: str | None = "row") -> list[int]:
    with searcher.search(query) as hits:
        rows = [hit.manifest_index for hit in hits.first(10_000, sort=sort)]
        assert hits.total == len(rows)
    return rows


NUMBERS = st.sampled_from([0, 1, 2, 3, 0.5, 1.5])
SHARES = st.sampled_from([0.05, 0.1, 0.3, 0.45, 0.6, 0.75, 0.9])
ORDERED = st.sampled_from([">=", "<=", ">", "<", "=", "!="])
CLASSES = st.sampled_from(["person", "car", "dog", "class 9", "class 70"])
LABELS = st.sampled_from(["label 0", "label 1", "label 7", "label 300"])


def both(text: str, holds: Holds) -> tuple[str, Holds]:
    return text, holds


TESTS = st.one_of(
    st.builds(lambda name: both(quoted(name), plain.has(name, *ALL_KINDS)), CLASSES | LABELS),
    st.builds(lambda name: both(f"class:{quoted(name)}", plain.has(name, "class")), CLASSES),
    st.builds(lambda name: both(f"label:{quoted(name)}", plain.has(name, "label")), LABELS),
    st.builds(lambda n, o, x: both(f"{quoted(n)}{o}{x}", plain.counted(n, o, x)), CLASSES, ORDERED, NUMBERS),
    st.builds(
        lambda n, o, x: both(f"{quoted(n)}.score {o} {x}", plain.scored(n, o, x, *ALL_KINDS)),
        CLASSES | LABELS,
        ORDERED,
        SHARES,
    ),
    st.builds(lambda n, o, x: both(f'"{n}".area{o}{x:.0%}', plain.sized(n, o, x)), CLASSES, ORDERED, SHARES),
    st.builds(
        lambda c, o, x: both(f"{c}{o}{x}", plain.compared(c, o, x)),
        st.sampled_from(["width", "height", "object_count", "exif_orientation"]),
        ORDERED,
        st.sampled_from([0, 1, 2, 640, 1024, 1920]),
    ),
    st.builds(
        lambda o, x: both(f"photographer{o}{x}", plain.compared("photographer", o, x)),
        st.sampled_from(["=", "!="]),
        st.sampled_from(["Ann", "bo", "Nobody"]),
    ),
    st.builds(
        lambda o, s: both(f"taken{o}{s[0]}", plain.within("taken", o, *s[1:])),
        ORDERED,
        st.sampled_from(
            [
                ("2022", date(2022, 1, 1), date(2023, 1, 1)),
                ("2022-12", date(2022, 12, 1), date(2023, 1, 1)),
                ("2023-02-28", date(2023, 2, 28), date(2023, 3, 1)),
            ]
        ),
    ),
    st.builds(
        lambda text: both(f"uri~{quoted(text)}", plain.contains("uri", text)),
        st.sampled_from(["00010", "PHOTOS/2026", "%", "_", "99.jpg"]),
    ),
    st.sampled_from(
        [both(f"error:{code}", plain.failed_with(code)) for code in ("*", "NOT_FOUND", "TIMEOUT")]
    ),
)


def combined(inner: st.SearchStrategy[tuple[str, Holds]]) -> st.SearchStrategy[tuple[str, Holds]]:
    def joined(parts: list[tuple[str, Holds]], word: str) -> tuple[str, Holds]:
        some = any if word == " OR " else all
        text = f"({word.join(text for text, _ in parts)})"
        return text, lambda image: some(holds(image) for _, holds in parts)

    def negated(part: tuple[str, Holds], word: str) -> tuple[str, Holds]:
        return f"{word}{part[0]}", lambda image: not part[1](image)

    return st.one_of(
        st.builds(joined, st.lists(inner, min_size=2, max_size=3), st.sampled_from([" ", " AND ", " OR "])),
        st.builds(negated, inner, st.sampled_from(["-", "NOT "])),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(query=st.recursive(TESTS, combined, max_leaves=6))
def test_any_query_finds_what_it_means_by_the_tables(opened: "Opened", query: tuple[str, Holds]) -> None:
    text, holds = query
    finds_failed = "error:" in text

    def is_found(image: Image) -> bool:
        return (finds_failed or image.error is None) and holds(image)

    expected = sorted(row for row, image in opened.images.items() if is_found(image))
    assert rows_of(opened.searcher, text) == expected, text


class Opened:
    """A run, opened for all examples."""

    def __init__(self, output: str) -> None:
        self.images, self.searcher = images_of(output), Searcher(output)


@pytest.fixture(scope="module")
def opened(large: str) -> Iterator[Opened]:
    opened = Opened(large)
    yield opened
    opened.searcher.close()


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("", [0, 1, 2, 3, 4, 6, 7, 8]),
        ("person", [2, 3, 6]),
        ("PERSON", [2, 3, 6]),
        ("pers*", [2, 3, 6]),
        ('"a \\"big\\" <cat> & dog"', [0, 4]),
        ('"naïve, café"', [0, 7]),
        ('"NAÏVE, CAFÉ"', [0, 7]),
        ('"v1.5 cup"', [0]),
        ("v1.5*", [0]),
        ('"never seen"', []),
        ("class:palace OR label:palace", None),
        ("label:palace", [0, 1, 2, 3, 4, 6, 7, 8]),
        ("indoors", [1, 2, 4, 7, 8]),
        ("tagger.scene:outdoors", [2, 8]),
        ("tagger:outdoors.score>0.4", [2, 8]),
        ("outdoors.score>0.5", []),
        ("error:*", [5]),
        ("error:truncated", [5]),
        ("-error:*", [0, 1, 2, 3, 4, 6, 7, 8]),
        ("error:* OR person", [2, 3, 5, 6]),
        ("at>=2026-01-08", [7, 8]),
        ("at=2026-01-01", [0]),
        ("at:2026-01-02", [1]),
        ("at=2026", [0, 1, 2, 3, 4, 6, 7, 8]),
        ("at<2025", []),
        ("manifest_label>=7", [7, 8]),
        ("split~\"'3'\"", [3]),
        ("-split~train", [0]),
        ('objects="MINE 4"', [4]),
        ("format=png width<100", [6]),
        ("width>=100.5 width<=200", [0, 1]),
        ("image_id~<1>", []),
        ("score=0.75 exif_orientation>1", [4, 6]),
        ("error:* at=2026-01-06", [5]),
        ("row=4", [4]),
        ("Row<2", [0, 1]),
        ("column:row>=7", [7, 8]),
        ("object_count>=2", [0]),
        ('objects="mine 3"', [3]),  # the manifest's own goes before
    ],
)
def test_what_is_found_among_odd_names(made: str, query: str, rows: list[int] | None) -> None:
    with Searcher(made) as searcher:
        if rows is None:
            with pytest.raises(QueryError), searcher.search(query):
                pass
        else:
            assert rows_of(searcher, query) == rows


@pytest.mark.parametrize(
    ("query", "message", "marked"),
    [
        ("persn", "no label, class or column 'persn'; did you mean person?", "persn"),
        ("person label:indors", "no label 'indors'; there are cat, dog, palace", "label:indors"),
        ("tagger.scene:indors", "no tag of scene 'indors'; did you mean indoors?", "tagger.scene:indors"),
        ("tagger.seen:x", "no tagger 'seen'; did you mean scene?", "tagger.seen:x"),
        ("colour:red", "before a colon, no kind or column 'colour'; ", "colour:red"),
        ("error:NOTFOUND", "no error code 'NOTFOUND'; did you mean NOT_FOUND?", "error:NOTFOUND"),
        ("person (width", "a bracket is not closed", "h"),
        ("width person", "width is a column; compare it, as in width>=1", "width"),
        ("person>=many", "'many' is no number", "person>=many"),
        ("person>=nan", "'nan' is no number", "person>=nan"),
        ("indoors>=2", "'indoors' is a tag, which has a score and no number of objects", "indoors>=2"),
        ("indoors.area>0.5", "'indoors' is a tag, which has no area", "indoors.area>0.5"),
        ("person~x", "~ is for texts", "person~x"),
        ("person.score", "compare it, as in person.score>0.5", "person.score"),
        ("person.area>20", "'20' is no area: that is from 0 to 1, or 0% to 100%", "person.area>20"),
        ("person.score<1e39", "'1e39' is no score", "person.score<1e39"),
        ("person or indoors", "no label, class or column 'or'; between tests write OR", "or"),
        ("width>=wide", "'wide' is no number", "width>=wide"),
        ("at>=yesterday", "'yesterday' is no time; allowed: 2024, 2024-05, 2024-05-17", "at>=yesterday"),
        ("at>=2026-13", "'2026-13' is no time", "at>=2026-13"),
        ("at=2026-01-01T10:00", "at is a day; '2026-01-01T10:00' has a time", "at=2026-01-01T10:00"),
        ("at:2026>3", "a colon is like =; write at>3", "at:2026>3"),
        ("error:*>2", "what follows error: is a code", "error:*>2"),
        ("width=1*", "'1*' is no number", "width=1*"),
        ("at=2026*", "'2026*' is no time", "at=2026*"),
        ("split>=t*", 'and >= compares with one value: split>="t*" takes it as it is', "split>=t*"),
    ],
)
def test_a_query_that_is_none_is_refused_at_its_place(
    made: str, query: str, message: str, marked: str
) -> None:
    with Searcher(made) as searcher, pytest.raises(QueryError) as raised, searcher.search(query):
        pass
    assert message in str(raised.value)
    assert query[raised.value.start : raised.value.end] == marked
    assert str(raised.value).count("\n") == 2


@pytest.mark.parametrize(
    ("sort", "rows"),
    [
        (None, [0, 6, 4, 2, 3, 7]),
        ("-best", [7, 3, 2, 4, 6, 0]),
        ("row", [0, 2, 3, 4, 6, 7]),
        ("-row", [7, 6, 4, 3, 2, 0]),
        ("width", [4, 6, 2, 3, 7, 0]),
        ("-at", [7, 6, 4, 3, 2, 0]),
        ("person.score", [6, 2, 3, 0, 4, 7]),
        ("person.area", [2, 3, 6, 0, 4, 7]),
        ('"naïve, café"', [0, 7, 2, 3, 4, 6]),
    ],
)
def test_the_order_is_the_one_that_is_asked_for(made: str, sort: str | None, rows: list[int]) -> None:
    with Searcher(made) as searcher:
        query = 'person OR "a \\"big\\" <cat> & dog" OR "naïve, café"'
        assert rows_of(searcher, query, sort) == rows


def test_short_names_are_columns_where_nothing_else_is_called_so(large: str) -> None:
    with Searcher(large) as searcher:
        assert rows_of(searcher, "objects>=9") == rows_of(searcher, "object_count>=9") != []
        assert rows_of(searcher, "objects>=9", "-objects") == rows_of(searcher, "objects>=9", "-object_count")
        assert rows_of(searcher, "row<3", "-row") == [2, 1, 0]
        assert rows_of(searcher, "manifest_index<3", "-manifest_index") == [2, 1, 0]


def test_a_class_or_a_column_of_the_manifest_goes_before_a_short_name() -> None:
    columns = [Column("manifest_index", "BIGINT"), Column("object_count", "INTEGER")]
    plain = Vocabulary([], columns)
    assert [plain.column_of(name) for name in ("row", "OBJECTS")] == columns
    assert [plain.short_of(column.name) for column in columns] == ["row", "objects"]
    own = [*columns, Column("Row", "VARCHAR", is_own=True)]
    taken = Vocabulary([Term(0, "class", "", "objects", 1)], own)
    assert (taken.column_of("row"), taken.column_of("objects")) == (own[2], None)
    assert [taken.short_of(column.name) for column in columns] == ["manifest_index", "object_count"]


def test_an_order_by_nothing_that_there_is_is_refused(made: str) -> None:
    with Searcher(made) as searcher, searcher.search("person") as hits:
        for sort in ("persn", "person>2", "person indoors", "-"):
            with pytest.raises(QueryError):
                hits.first(3, sort=sort)


def test_a_hit_has_what_was_asked_for_and_all_that_the_index_knows(made: str) -> None:
    with Searcher(made) as searcher, searcher.search('"v1.5 cup" indoors OR "v1.5 cup"') as hits:
        (hit,) = hits.first(5)
        assert (hit.manifest_index, hit.error) == (0, None)
        assert hit.matches == {"v1.5 cup": Match(0.625, 1, 1.0)}
        assert hit.columns["label"] == "palace"
        assert (hit.columns["width"], hit.columns["object_count"], hit.columns["at"]) == (
            200,
            3,
            "2026-01-01",
        )
        assert hit.columns["manifest_label"] == 0
    with Searcher(made) as searcher, searcher.search("error:*") as hits:
        (hit,) = hits.first(5)
        assert (hit.error, hit.columns["width"], hit.columns["objects"]) == ("TRUNCATED", None, "mine 5")


def test_facets_count_the_hits_and_are_queries(made: str) -> None:
    with Searcher(made) as searcher:
        with searcher.search("-person") as hits:
            facets = hits.facets()
        for values in facets.values():
            for value in values:
                assert len(rows_of(searcher, f"-person {value.query}")) == value.images, value
        counts = {name: {value.value: value.images for value in values} for name, values in facets.items()}
    assert counts["class"] == {'a "big" <cat> & dog': 2, "naïve, café": 2, "v1.5 cup": 1}
    assert counts["label"] == {"palace": 5, "cat": 5}
    assert counts["tagger.scene"] == {"indoors": 4, "outdoors": 1}
    assert counts["format"] == {"JPEG": 4, "PNG": 1}


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", ["2022", "2023", "2024"]),
        ("taken=2022", [f"2022-{month:02d}" for month in range(1, 13)]),
        ("taken=2022-02", [f"2022-02-{day:02d}" for day in range(1, 29)]),
        ("taken=2022-02-03", ["2022-02-03"]),
        ("error:*", ["2022", "2023"]),
        ("taken<2000", []),
    ],
)
def test_facets_of_times_are_years_or_months_of_one_or_days(
    large: str, query: str, values: list[str]
) -> None:
    with Searcher(large) as searcher:
        with searcher.search(query) as hits:
            found, total = hits.facets().get("taken", []), hits.total
        assert [value.value for value in found] == values
        assert sum(value.images for value in found) == total
        for value in found:
            assert value.query == f"taken={value.value}"
            assert len(rows_of(searcher, f"{query} {value.query}")) == value.images


def test_times_that_are_texts_have_such_facets_too(tmp_path: Path) -> None:
    second = timezone(timedelta(hours=2))
    moments = [datetime(2023 + row // 3, 5, 1 + row, 23, 30, row) for row in range(9)]
    further = {
        "shot": pa.array([str(moment) for moment in moments]),
        "iso": pa.array([*(f"{moment.isoformat()}Z" for moment in moments[:4]), "", None, "", "", ""]),
        "zoned": pa.array([moment.replace(tzinfo=second) for moment in moments], pa.timestamp("us", "UTC")),
        "nano": pa.array(moments, pa.timestamp("ns")),
        "mixed": pa.array([*(str(moment) for moment in moments[:8]), "soon"]),
        "number": pa.array([str(2020 + row) for row in range(9)]),
        "none": pa.nulls(9, pa.string()),
    }
    output = write_run(tmp_path, further=further)
    make_index(output)
    with Searcher(output) as searcher:
        assert searcher.about.times == ("at", "shot", "iso", "zoned", "nano")
        with searcher.search("") as hits:
            facets = hits.facets()
        years = {"2023": 3, "2024": 2, "2025": 3}
        for name in ("shot", "zoned", "nano"):
            assert {value.value: value.images for value in facets[name]} == years, name
            for value in facets[name]:
                assert len(rows_of(searcher, value.query)) == value.images, value
        assert {value.value: value.images for value in facets["iso"]} == {"2023": 3, "2024": 1}
        assert [value.value for value in facets["at"]][:2] == ["2026-01-01", "2026-01-02"]
        assert len(facets["number"]) == 8
        assert len(facets["mixed"]) == 8


def test_several_queries_are_open_at_once(large: str) -> None:
    with Searcher(large) as searcher, searcher.search("person") as one, searcher.search("dog -person") as two:
        first = {hit.manifest_index for hit in one.first(3000)}
        assert first
        assert first.isdisjoint(hit.manifest_index for hit in two.first(3000))


def test_without_an_index_it_is_said_how_to_make_one(tmp_path: Path) -> None:
    output = str(tmp_path / "run")
    publish(begun(output), 0)
    with pytest.raises(
        StorageError, match=r"there is no index .*search\.duckdb; make it with `raylabel index"
    ):
        Searcher(output)
    (tmp_path / "run" / "search.duckdb").write_bytes(b"no database")
    with pytest.raises(StorageError, match=r"search\.duckdb is damaged, or no index .*; make it with"):
        Searcher(output)
    with pytest.raises(StorageError, match=r"there is no index .*elsewhere"):
        Searcher(output, tmp_path / "elsewhere")


def test_an_index_that_is_older_than_the_tables_is_refused(tmp_path: Path) -> None:
    output = str(tmp_path / "run")
    run = begun(output)
    publish(run, 0)
    make_index(output)
    Searcher(output).close()
    publish(run, 1)
    with pytest.raises(
        OutputConflictError, match=r"older than the tables of .*; make it with `raylabel index"
    ):
        Searcher(output)
    make_index(output)
    Searcher(output).close()
    Store(output).write(SUCCESS, b'{"labels": 1, "boxes": 1, "errors": 1}')
    with pytest.raises(OutputConflictError, match="older than the tables"):
        Searcher(output)


def test_an_index_and_what_is_found_replace_no_file_of_a_run(tmp_path: Path) -> None:
    output = str(tmp_path / "run")
    publish(begun(output), 0)
    make_index(output)
    table = tmp_path / "run" / "labels" / "shard-00000.parquet"
    before = table.read_bytes()
    with pytest.raises(StorageError, match="labels is a part of the run at"):
        search_run(output, "", SearchOptions(file=table))
    with pytest.raises(StorageError, match="_work is a part of the run at"):
        make_index(output, tmp_path / "run" / "_work" / "new.duckdb")
    with pytest.raises(SpecError, match=r"shard-00000.parquet: allowed are files that end in .duckdb"):
        make_index(output, table)
    assert table.read_bytes() == before


def test_a_file_that_is_no_index_is_named(tmp_path: Path, made: str) -> None:
    (tmp_path / "photos.csv").write_text("uri\na.jpg\n")
    with pytest.raises(StorageError, match=r"photos\.csv is (no index|damaged)"):
        Searcher(made, tmp_path / "photos.csv")


def test_an_index_of_another_run_is_refused(tmp_path: Path, made: str) -> None:
    store = Store(str(tmp_path / "run"))
    begin_run(store, record(id="another"))
    publish(RunDirectory.first(store, record(id="another")), 0)
    make_index(store.url, tmp_path / "other.duckdb")
    with pytest.raises(OutputConflictError, match="is an index of another run"):
        Searcher(made, tmp_path / "other.duckdb")


def test_a_name_of_two_kinds_is_two_words_and_no_hit_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = resolved("guess", "classifier", ("person", "dog", "palace"), "tags")
    monkeypatch.setattr(made_run, "CLASSIFIER", classifier)
    output = write_run(tmp_path, {**MODELS, "classifier": classifier})
    make_index(output)
    with Searcher(output) as searcher:
        for query in ("label:person (class:person OR width>0)", "class:person (label:person OR width>0)"):
            with searcher.search(query) as hits:
                assert hits.total == len(hits.first(99)) == len(list(hits.all())) > 2, query
        with searcher.search("label:person class:person") as hits:
            matches = hits.first(1)[0].matches
    assert {name: match.count for name, match in matches.items()} == {"label:person": None, "class:person": 1}


ODD = (
    *("image", "count", "score_", "term", "found", "place", "number", "similarity", "matches", "entry"),
    *("area", "hits", "ordered", "these", "select", "i", "f", "tagger", "person", "a.b", 'say "hi"'),
    *("50%", "x y"),
)
"""Names of columns that mean something else, or are hard to write."""


def test_columns_of_any_name_are_found_sorted_counted_and_written(tmp_path: Path) -> None:
    further = {name: pa.array([f"v{(7 * row + 3) % 9}" for row in range(9)]) for name in ODD}
    output = write_run(tmp_path, further=further)
    make_index(output)
    expected = sorted(LABELLED, key=lambda row: (7 * row + 3) % 9)
    with Searcher(output) as searcher:
        for name in ODD:
            column = f"column:{quoted(name)}"
            assert rows_of(searcher, f"{column}=v3") == [0], name
            if name == "person":  # a class as well
                continue
            with searcher.search("") as hits:
                assert [hit.manifest_index for hit in hits.first(99, sort=quoted(name))] == expected, name
                assert [row[0] for row in hits.all(sort=quoted(name))] == expected, name
        with searcher.search("") as hits:
            facets = hits.facets()
            hit = hits.first(1, sort="row")[0].to_dict()
            hits.narrow(searcher.similar(hits, "3", 5))
            alike = [hit.manifest_index for hit in hits.first(5)]
            assert [row[0] for row in hits.all()] == alike
            hits.save(tmp_path / "alike.parquet")
        for name in ODD:
            for value in facets[name]:
                assert len(rows_of(searcher, value.query)) == value.images, value
    assert (hit["matches"], hit["manifest_matches"], hit["place"]) == ({}, "v3", "v3")
    table = pq.read_table(tmp_path / "alike.parquet")
    assert table["manifest_index"].to_pylist() == alike
    assert {"similarity", "similarity_1"} <= set(table.column_names)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("ERROR:truncated", [5]),
        ("Error:*", [5]),
        ("column:ERROR=TRUNCATED", [5]),
        ("Class:PERSON.Score>0.75", [6]),
        ("text>B", [2, 3]),
        ("text<=b", [0, 1]),
        ("text=STRASSE", [3]),
        ("whole>=1e-11", [1, 2, 3, 4, 6, 7, 8]),
        ("whole>0.5 whole<1.5", [1]),
        ("whole=1e-99999999999999999999", []),
        ("whole>1e-99999999999999999999 whole<2", [1]),
        ("whole>=-1e-99999999999999999999 whole<1", [0]),
        ("whole<1e300", [0, 1, 2, 3, 4, 6, 7, 8]),
        ("whole>-1e300 whole<=1e0", [0, 1]),
        ("money>=0.000000001 money<0.25", []),
        ("money>0.24999999999999999999 money<0.2500000000001", [1]),
        ("money>=1e37", []),
        ("fine>=123456789", []),
        ("fine<123456789", [0, 1, 2, 3, 4, 6, 7, 8]),
        ("csv>9", [3]),
        ("csv<=9", [0, 1]),
        ("csv=10", [3]),
        ("csv=1e1", [3]),
        ("csv!=10", [0, 1, 2, 4, 6, 7, 8]),
        ("csv>x", [2]),
        ("day>=2024", [1, 2]),
        ("day=2024", [1]),
        ("day<=2024-05 day>=2024-05", [1]),
        ("day<2024", [0]),
        ("day=soon", [3]),
        ("day>=2024-13", [2, 3]),
        ("day>=2024-05-17T10:30", [1, 2]),
        ("ratio>5", [6, 7, 8]),
        ("ratio<1e308", [0, 2, 3, 4, 6, 7, 8]),
        ("score<1e39", [0, 1, 2, 3, 4, 6, 7, 8]),
        ("person.score!=0.75", [0, 1, 3, 4, 6, 7, 8]),
        ("nano<2500 nano>=1600", [0, 1, 2, 3, 4, 6, 7, 8]),
        ("nano=2026-01-02T00:00:00.000001", [1]),
        ("never<9999", [1, 2, 3, 4, 6, 7, 8]),
        ("never=9999-12-31", [0]),
        ("never<=9999 never>=9999", [0]),
        ("never>9999", []),
        ("text=STRA*", [2, 3]),
        ("text=*e", [2, 3]),
        ("text=*t*r*", [2, 3]),
        ("text=*", [0, 1, 2, 3]),
        ("text!=stra*", [0, 1, 4, 6, 7, 8]),
        ("-text=stra*", [0, 1, 4, 6, 7, 8]),
        ("text:s*", [2, 3]),
        ('text="stra*"', []),
        ('text:"*"', []),
        ("text~t*s", [3]),
        ("marked=10%*", [1]),
        ("marked=a.c*", [2]),
        ('marked="a*b"', [0]),
        ("marked=a*b", [0, 3]),
        ("marked~*b", [0, 3]),
        ("csv=*", [0, 1, 2, 3]),
        ("csv=1*", [3]),
        ("whole=*", [0, 1, 2, 3, 4, 6, 7, 8]),
        ("whole~*2", [2]),
        ("never!=*", []),
        ("text=" + "*" * 500 + "s" + "*a" * 200, []),
    ],
)
def test_values_are_compared_as_they_are(typed: str, query: str, rows: list[int]) -> None:
    with Searcher(typed) as searcher:
        assert rows_of(searcher, query) == rows


def test_numbers_that_are_texts_are_sorted_as_numbers_before_other_texts(typed: str) -> None:
    with Searcher(typed) as searcher:
        assert rows_of(searcher, "", "csv") == [1, 0, 3, 2, 4, 6, 7, 8]
        assert rows_of(searcher, "", "-csv") == [3, 0, 1, 2, 4, 6, 7, 8]
        assert rows_of(searcher, "day~0", "-day") == [2, 1, 0]


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> str:
    second = 10**9
    began = 1_767_225_600 * second  # 2026-01-01
    further = {
        "csv": pa.array(["9", " 2.5 ", "z", "10", "", *[None] * 4]),
        "day": pa.array(["2023-12-31", "2024-05-17 10:30:00", "2025-01-01T00:00:00", "soon", *[None] * 5]),
        "text": pa.array(["a", "B", "Straße", "STRASSE", *[None] * 5]),
        "marked": pa.array(["a*b", "10%_", "a.c(", "a\nb", *[None] * 5]),
        "whole": pa.array(range(9), pa.int8()),
        "money": pa.array([Decimal(n) / 4 for n in range(9)], pa.decimal128(10, 2)),
        "fine": pa.array([Decimal(n) / 4 for n in range(9)], pa.decimal128(38, 30)),
        "ratio": pa.array([0.0, math.nan, 2, 3, 4, 5, 6, 7, 8], pa.float64()),
        "nano": pa.array([began + 86_400 * second * n + 1001 for n in range(9)], pa.timestamp("ns")),
        "never": pa.array([date(9999, 12, 31), *[date(2026, 1, 1)] * 8], pa.date32()),
    }
    output = write_run(tmp_path_factory.mktemp("typed"), further=further)
    make_index(output)
    return output


def test_a_wildcard_of_many_stars_is_answered(made: str) -> None:
    with Searcher(made) as searcher:
        assert rows_of(searcher, "*" * 500 + "person" + "*" * 500) == [2, 3, 6]
        assert rows_of(searcher, "p*e*r*s*o*n") == [2, 3, 6]
        for query in ("*" * 50 + "x", "p*r*n*n", "*person*person*"):
            with pytest.raises(QueryError, match="no label, class or column"), searcher.search(query):
                pass


def test_none_of_a_class_is_a_number_of_objects_to_sort_by(made: str) -> None:
    with Searcher(made) as searcher:
        assert rows_of(searcher, "", "-person") == [0, 1, 4, 7, 8, 2, 3, 6]
        assert rows_of(searcher, "", "person") == [2, 3, 6, 0, 1, 4, 7, 8]


def test_what_is_alike_is_out_of_what_the_query_finds_however_many_that_are(made: str) -> None:
    with Searcher(made) as searcher, searcher.search("error:* OR manifest_index!=3") as hits:
        assert hits.total == searcher.about.labelled == 8
        found = searcher.similar(hits, "8", 99)
    assert sorted(each.row for each in found) == [0, 1, 2, 4, 6, 7]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_damaged_index_is_named_with_what_to_do_or_answers_rightly(
    tmp_path: Path, large: str, share: float
) -> None:
    file = tmp_path / "index.duckdb"
    whole = Path(large, "search.duckdb").read_bytes()
    middle = int(share * len(whole))
    for content in (whole[:middle], whole[:middle] + bytes(5000) + whole[middle + 5000 :]):
        file.write_bytes(content)
        found = message = None
        try:
            with Searcher(large, file) as searcher, searcher.search("person car") as hits:
                found = hits.total, [hit.manifest_index for hit in hits.first(50)]
        except StorageError as error:
            message = str(error)
        with Searcher(large) as searcher, searcher.search("person car") as hits:
            right = hits.total, [hit.manifest_index for hit in hits.first(50)]
        assert found in (None, right)
        assert message is None or re.search(r"index\.duckdb is .*; make it with .* --into ", message)
