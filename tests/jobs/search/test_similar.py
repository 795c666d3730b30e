import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.search import similar
from jobs.search.build import make_index
from jobs.search.searcher import Searcher
from jobs.search.similar import cosines, nearest
from schemas.exceptions import SpecError, StorageError
from schemas.locations import Location
from schemas.spec import FetchSpec
from tests.jobs.exports.made_run import MODELS, write_run
from tests.jobs.search.documented_run import vector_of, write_documented_run
from workers.fetch.locate import read_image

LABELLED = np.array([row for row in range(200) if row % 5 != 4])
VECTORS = np.array([vector_of(int(row)) for row in LABELLED])


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    output = write_documented_run(str(tmp_path_factory.mktemp("run")))
    make_index(output)
    return output


@pytest.fixture
def searcher(output: str) -> Iterator[Searcher]:
    with Searcher(output) as searcher:
        yield searcher


def alike(vector: np.ndarray, rows: np.ndarray = LABELLED) -> list[int]:
    """Rows by how like their vectors are, computed in one go."""
    order = sorted(rows.tolist(), key=lambda row: (-float(np.float32(vector_of(row) @ vector)), row))
    return [int(row) for row in order]


@pytest.mark.parametrize("batch_rows", [7, 8192])
@pytest.mark.parametrize("most", [1, 10, 500])
def test_the_nearest_of_all_embeddings_are_found_whatever_is_read_at_once(
    output: str, batch_rows: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "BATCH_ROWS", batch_rows)
    vector = vector_of(33)
    found = nearest(output, 3 * vector, most)
    assert [each.row for each in found] == alike(vector)[:most]
    assert found[0].row == 33
    assert [each.similarity for each in found] == pytest.approx(
        sorted((VECTORS @ vector).tolist(), reverse=True)[:most], abs=1e-6
    )


def test_only_some_images_are_compared(output: str) -> None:
    among = LABELLED[LABELLED % 3 == 0]
    found = nearest(output, vector_of(33), 5, among, without=33)
    assert [each.row for each in found] == [row for row in alike(vector_of(33), among) if row != 33][:5]
    assert nearest(output, vector_of(33), 5, np.array([], np.int64)) == []


def test_a_vector_of_zeros_is_like_nothing() -> None:
    vectors = np.array([[3, 4], [0, 0]], np.float32)
    assert cosines(vectors, np.array([0, 2], np.float32)).tolist() == [pytest.approx(0.8), 0]
    assert cosines(vectors, np.zeros(2, np.float32)).tolist() == [0, 0]


@pytest.mark.parametrize("like", ["33", "s3://photos/2024/0033.jpg"])
def test_what_is_like_an_image_of_the_run_is_found_without_it(searcher: Searcher, like: str) -> None:
    with searcher.search("") as hits:
        hits.narrow(searcher.similar(hits, like, 10))
        found = hits.first(10)
        assert (hits.compared, hits.total) == (len(LABELLED), 10)
    assert [hit.manifest_index for hit in found] == [row for row in alike(vector_of(33)) if row != 33][:10]
    assert {row % 10 for row in [hit.manifest_index for hit in found[:5]]} == {3}
    assert [hit.similarity for hit in found] == sorted((hit.similarity or 0 for hit in found), reverse=True)


def test_what_is_alike_is_narrowed_by_a_query_and_may_be_sorted_anew(
    searcher: Searcher, tmp_path: Path
) -> None:
    with searcher.search("person") as hits:
        persons = hits.rows()
        assert 20 < len(persons) < 160
        hits.narrow(searcher.similar(hits, "33", 7))
        expected = [row for row in alike(vector_of(33), persons) if row != 33][:7]
        assert [hit.manifest_index for hit in hits.first(99)] == expected
        assert [hit.manifest_index for hit in hits.first(99, sort="row")] == sorted(expected)
        assert all(hit.matches["person"].count for hit in hits.first(99))
        assert (hits.compared, hits.total) == (len(persons), 7)
        hits.save(tmp_path / "alike.parquet")
    table = pq.read_table(tmp_path / "alike.parquet")
    assert table["manifest_index"].to_pylist() == expected
    assert table.column_names[-1] == "similarity"


@pytest.mark.parametrize(
    ("like", "row"),
    [
        ("0033.jpg", 33),
        ("2024/0033.jpg", 33),
        ("…/2024/0033.jpg", 33),
        ("00…3.jpg", None),
        ("2024/0…33.jpg", None),
        ("20…4/0033.jpg", 33),
        ("33.jpg", None),
        ("photos/2024/0033.jpg", 33),
        ("0033.JPG", None),
    ],
)
def test_an_image_of_the_run_is_named_as_it_is_shown(searcher: Searcher, like: str, row: int | None) -> None:
    if "…" in like and row is None:
        with pytest.raises(SpecError, match="several images of the run are called so, in rows "):
            searcher.row_named(like)
    else:
        assert searcher.row_named(like) == row


def test_a_short_name_finds_what_is_like_its_image(searcher: Searcher) -> None:
    with searcher.search("") as hits:
        by_name, by_row = (searcher.similar(hits, like, 10) for like in ("2024/0033.jpg", "33"))
    assert by_name == by_row


def test_where_several_images_have_a_name_their_rows_are_said(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    make_index(output)
    with Searcher(output) as searcher, searcher.search("") as hits:
        with pytest.raises(SpecError) as raised:
            searcher.similar(hits, "same.jpg", 3)
        assert str(raised.value) == (
            "--like same.jpg: several images of the run are called so, in rows 2 (a/same.jpg), "
            "3 (b/same.jpg); name one by its row"
        )
        assert searcher.row_named("b/same.jpg") == 3
        assert searcher.row_named("in side.jpg") == searcher.row_named("shard.tar/in side.jpg") == 7
        with pytest.raises(SpecError, match="row 5 has no embedding: it failed"):
            searcher.similar(hits, "failed.jpg", 3)


NONE = "there is no such file, and no image of the run is called so"
ALLOWED = "Allowed are the row, URI or name of an image of the run, and any photo: a path or a URL"


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ("", f"--like is empty. {ALLOWED}"),
        (" ", f"--like is empty. {ALLOWED}"),
        ("no/such.jpg", f"--like no/such.jpg: {NONE}. {ALLOWED}"),
        ("x" * 300, f"--like {'x' * 157}...: {NONE}. {ALLOWED}"),
        ("-1", f"--like -1: {NONE}. {ALLOWED}"),
        ("a\0b", f"--like a b: {NONE}. {ALLOWED}"),
        ("file:///no/such.jpg", f"--like file:///no/such.jpg: there is no such file. {ALLOWED}"),
        (".", f"--like .: it is no image. {ALLOWED}"),
        ("none://x/y.jpg", f"--like none://x/y.jpg: an image of this kind is not read. {ALLOWED}"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(
    with_spec: str, monkeypatch: pytest.MonkeyPatch, like: str, message: str
) -> None:
    monkeypatch.setattr(similar, "build_photo_embedder", build_reader)
    with (
        Searcher(with_spec) as searcher,
        searcher.search("") as hits,
        pytest.raises((SpecError, StorageError)) as raised,
    ):
        searcher.similar(hits, like, 3)
    assert str(raised.value) == message


@pytest.fixture(scope="module")
def with_spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same run with a whole spec, which a photo is embedded by."""
    output = write_documented_run(str(tmp_path_factory.mktemp("run")))
    file = Path(output, "run.json")
    values = json.loads(file.read_text())
    values["spec"] |= {"manifest": {"uri": "photos.csv"}, "output": "run"}
    file.write_text(json.dumps(values))
    make_index(output)
    return output


def build_reader(_: object) -> Callable[[Location, object], None]:
    """What reads a photo, in place of the embedder, which would not get to see one."""

    def read(location: Location, _: object) -> None:
        read_image(location, FetchSpec())

    return read


@pytest.mark.parametrize("like", ["4", "200", "99999999999999999999"])
def test_a_row_without_an_embedding_is_refused(searcher: Searcher, like: str) -> None:
    with searcher.search("") as hits, pytest.raises(SpecError, match=r"has no embedding: .* 0 to 199"):
        hits.narrow(searcher.similar(hits, like, 3))


def test_a_run_without_embeddings_says_how_there_are_some(tmp_path: Path) -> None:
    output = write_run(tmp_path, {"detector": MODELS["detector"]})
    make_index(output)
    with (
        Searcher(output) as searcher,
        searcher.search("") as hits,
        pytest.raises(SpecError, match=r"has no embeddings, .* Write `embedder:` in the"),
    ):
        hits.narrow(searcher.similar(hits, "3", 3))
