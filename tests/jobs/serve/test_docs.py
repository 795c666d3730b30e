"""docs/search-page.md against the code."""

import re
from typing import Any

import httpx

from jobs.serve import app, photos
from jobs.serve.command import WAITING
from tests.conftest import ROOT
from tests.test_docs import blocks, section, table_rows

PAGE = (ROOT / "docs" / "search-page.md").read_text(encoding="utf-8")


def test_every_address_for_programs_is_documented() -> None:
    documented = {row[0] for row in table_rows(section(PAGE, "For programs"))}
    paths = re.findall(r'"(/(?:api|photo)[^"]*)": ', (ROOT / "jobs" / "serve" / "app.py").read_text())
    assert {path.replace("{row}", "ROW") for path in paths} <= documented


def test_the_example_has_the_keys_of_an_answer(client: httpx.Client) -> None:
    import json

    (text,) = blocks(PAGE, "json")
    example: Any = json.loads(text)
    answer = client.get("/api/search", params={"q": "person", "facets": "1"}).json()
    assert set(example) == set(answer)
    assert set(example["hits"][0]) <= set(answer["hits"][0])
    assert set(example["hits"][0]["matches"]["person"]) == set(answer["hits"][0]["matches"]["person"])
    assert set(example["facets"]["class"][0]) == set(answer["facets"]["class"][0])
    image = client.get("/api/image/0").json()
    assert {"labels", "tags", "objects", "failure"} <= set(image)
    for key in ("labels", "tags", "objects", "failure"):
        assert f"| `{key}` |" in PAGE


def test_the_bounds_are_those_of_the_code() -> None:
    assert (app.QUERIES, app.FACETS, app.NAMES) == (2, 1, 1)
    for bound in (
        f"{app.KEPT_BYTES >> 20} MiB",
        f"{photos.READS}, and {photos.DECODES};",
        f"{photos.KEPT_BYTES >> 20} MiB",
        f"{photos.MAX_FILE >> 20} MiB, and {photos.PATIENCE_S:g} seconds",
        f"| {WAITING}; ",
    ):
        assert bound in section(PAGE, "What it costs"), bound
    assert f"`small` ({photos.SIDES['small']} pixels) or `large` ({photos.SIDES['large']:,})" in PAGE
    assert f"at most {app.MAX_LIMIT:,}" in PAGE
