"""Phones and cameras: whole runs over HEIC and JPEG photos with facts, and what is made of their tables."""

import datetime
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from PIL import Image

from jobs.prepare.begun import begun_spec
from jobs.run.retry import begin_retry, codes_of
from schemas.exceptions import OutputConflictError
from schemas.spec_file import build_spec, parse_yaml
from schemas.tables import FACTS_OF
from tests.conftest import ROOT
from tests.integration.jobs_here import label_here, raylabel, run_here, tables
from tests.workers.decode.test_exif import WHOLE, whole
from tests.workers.image_files import heic
from workers.decode.decode import decode
from workers.decode.phash import phash
from workers.ledger.runs import find_run

pytestmark = pytest.mark.usefixtures("ray_here")

PAGE = (ROOT / "docs" / "phones.md").read_text()
NAMES = ("cat.heic", "cat.jpg", "rocket.jpg", "small.jpg", "gone.jpg")


@pytest.fixture(scope="module")
def folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HEIC with EXIF, a JPEG with the same, one without, a small copy; a manifest with names of facts."""
    folder = tmp_path_factory.mktemp("phones")
    cat = Image.open(photos / "chelsea.png").convert("RGB")
    with_exif = cat.copy()
    with_exif.info["exif"] = whole().tobytes()
    (folder / "cat.heic").write_bytes(heic(with_exif, quality=90))
    cat.save(folder / "cat.jpg", exif=whole(), quality=90)
    cat.resize((225, 150)).save(folder / "small.jpg")
    (folder / "rocket.jpg").write_bytes((photos / "rocket.jpg").read_bytes())
    lines = [f"{name},told {n},{n}" for n, name in enumerate(NAMES)]
    (folder / "list.csv").write_text("uri,taken_at,Phash\n" + "\n".join(lines))
    return folder


def settings(folder: Path, output: Path) -> dict[str, Any]:
    units = {"rows": 2, "shard_rows": 4}
    return {"manifest": str(folder / "list.csv"), "output": str(output), "units": units, "detector": None}


def test_facts_are_columns_of_labels_beside_the_manifests_own_through_retry_search_and_export(
    folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    found = run_here(**settings(folder, output), facts=["phash", "exif"])
    assert found == {"labels": 4, "boxes": 0, "errors": 1}

    labels = tables(output)["labels"]
    names = [field.name for fields in FACTS_OF.values() for field in fields]
    assert labels.column_names[-len(names) - 3 :] == [
        "manifest_uri",
        *names,
        "manifest_taken_at",
        "manifest_Phash",
    ]
    rows = {row["uri"].rpartition("/")[2]: row for row in labels.to_pylist()}
    nothing = dict.fromkeys(WHOLE)
    assert {name: {key: row[key] for key in WHOLE} for name, row in rows.items()} == {
        "cat.heic": WHOLE,
        "cat.jpg": WHOLE,
        "rocket.jpg": nothing,
        "small.jpg": nothing,
    }
    for name, row in rows.items():
        pixels = decode((folder / name).read_bytes(), max_pixels=10**8).pixels
        assert (row["phash"], row["manifest_taken_at"]) == (phash(pixels), f"told {NAMES.index(name)}")
    assert [row["format"] for row in rows.values()] == ["HEIC", "JPEG", "JPEG", "JPEG"]
    assert tables(output)["errors"]["manifest_taken_at"].to_pylist() == ["told 4"]

    (folder / "gone.jpg").write_bytes((folder / "cat.jpg").read_bytes())
    try:
        spec = begun_spec(str(output), {})
        assert spec.facts == ["exif", "phash"]
        assert begin_retry(str(output), codes_of(["NOT_FOUND"]))
        retried = label_here(spec, find_run(str(output)).record.manifest)
        assert retried == {"labels": 5, "boxes": 0, "errors": 0}
    finally:
        (folder / "gone.jpg").unlink()
    (last,) = tables(output)["labels"].slice(4).to_pylist()
    assert {key: last[key] for key in (*WHOLE, "phash", "manifest_Phash")} == {
        **WHOLE,
        "phash": rows["cat.jpg"]["phash"],
        "manifest_Phash": "4",
    }
    assert raylabel("reconcile", str(output)).returncode == 0

    def search(query: str) -> list[int]:
        done = raylabel("search", str(output), query, "--json")
        assert done.returncode == 0, done.stderr
        return [image["manifest_index"] for image in json.loads(done.stdout)["hits"]]

    assert raylabel("index", str(output)).returncode == 0
    assert search('taken_at>2024-01-01 camera_model="iPhone 12"') == [0, 1, 4]
    assert search("taken_at>=2024-06") == []
    assert search("latitude>=48 latitude<49 longitude<0 lens~back") == [0, 1, 4]
    assert search("manifest_taken_at=*3") == [3]

    assert (
        raylabel("export", str(output), "--format", "opensearch", "--into", str(tmp_path / "x")).returncode
        == 0
    )
    lines = (tmp_path / "x" / "bulk-00000.ndjson").read_text().splitlines()
    own = json.loads(lines[1])["manifest"]
    assert (own["taken_at"], own["camera_model"], own["manifest_taken_at"]) == (
        "2024-05-06T07:08:09.123000",
        "iPhone 12",
        "told 0",
    )
    assert raylabel("report", str(output)).returncode == 0
    assert "exif" in (output / "report.html").read_text()


def test_the_queries_of_the_page_find_near_duplicates(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_here(**settings(folder, output), facts="phash")
    pages = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    near, same, quarters = (duckdb.sql(text.replace("runs/today", str(output))).fetchall() for text in pages)
    pairs = {(Path(one).name, Path(other).name) for one, other, bits in near if bits <= 6}
    assert {("cat.heic", "cat.jpg"), ("cat.jpg", "small.jpg")} <= pairs
    assert not any("rocket.jpg" in pair for pair in pairs)
    assert {(one, other) for one, other, _ in quarters} == {
        (one, other) for one, other, bits in near if bits <= 3
    }
    hashes = [row["phash"] for row in tables(output)["labels"].to_pylist()]
    assert {row[:2] for row in same} == {(h, hashes.count(h)) for h in hashes if hashes.count(h) > 1}


@pytest.mark.slow
def test_a_run_without_facts_has_none_and_is_not_resumed_with_some(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_here(**settings(folder, output))
    labels = tables(output)["labels"]
    assert labels.column_names[-3:] == ["manifest_uri", "taken_at", "Phash"]
    assert labels["taken_at"].to_pylist() == ["told 0", "told 1", "told 2", "told 3"]
    with pytest.raises(OutputConflictError, match="facts: none there, exif now"):
        run_here(**settings(folder, output), facts=["exif"])


def test_each_line_of_the_table_of_models_is_a_job() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    table = page.partition("| I have [photos](phones.md) | I write |")[2].partition("\n\n")[0]
    lines = re.findall(r"^\| (.+?) \| `(facts: .+)` \|$", table, re.MULTILINE)
    assert [
        build_spec({"manifest": "a", "output": "b", **parse_yaml(line)}, "page").facts for _, line in lines
    ] == [
        ["exif"],
        ["phash"],
    ]


def test_the_time_of_the_page_is_utc() -> None:
    (expression,) = re.findall(r"`(taken_at - to_minutes\(taken_at_offset\))`", PAGE)
    row = "SELECT TIMESTAMP '2024-05-06 07:08:09' AS taken_at, 120::INTEGER AS taken_at_offset"
    assert duckdb.sql(f"SELECT {expression} FROM ({row})").fetchall() == [
        (datetime.datetime(2024, 5, 6, 5, 8, 9),)
    ]
