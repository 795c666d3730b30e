import asyncio
import io
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from jobs.search.build import make_index
from jobs.serve.app import Pages
from jobs.serve.photos import Photos
from jobs.serve.runs import open_runs
from tests.jobs.exports import made_run
from tests.jobs.exports.made_run import LABELLED, size_of, write_run
from tests.jobs.report.test_page import Page
from tests.jobs.serve.conftest import serving

EVIL = "<script>alert('\"&')</script>"


class Html(Page):
    """A page with links to its style and its script."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag == "link":
            self.open.pop()


def page_of(client: httpx.Client, path: str, status: int = 200, **values: str) -> Page:
    """A page, once it was seen to be well-formed and to have no script or style of its own."""
    answer = client.get(path, params=values or None)
    assert answer.status_code == status, answer.text
    page = Html(answer.text)
    assert page.open == []
    assert [level for level, _ in page.headings].count(1) == 1
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name != "style", tag
        if name in ("src", "href", "action"):
            assert value.startswith(("/", "#", "data:,")), (tag, value)
            assert not value.startswith("//")
    assert page.tags.count("script") == 1
    return page


def get(client: httpx.Client, path: str, **values: str) -> Any:
    return client.get(path, params=values or None).json()


def test_a_search_shows_what_it_finds(client: httpx.Client) -> None:
    page = page_of(client, "/", q="person")
    assert "3 of 8 images" in page.words
    links = [value for value in page.values("href") if value.startswith("/image/")]
    assert [link.partition("?")[0] for link in links] == ["/image/6", "/image/2", "/image/3"]
    assert page.values("alt")[1] == "a/same.jpg: palace 0.75; 1 person"
    assert "raylabel search" in page.words
    assert "boxes" in page.values("class")


def chips_of(client: httpx.Client, **values: str) -> list[str]:
    """What is marked below the photo of the first hit."""
    card, *_ = re.findall(r'<span class="caption">.*?</a>', client.get("/", params=values).text, re.DOTALL)
    return re.findall(r'<span class="match">(.*?)</span>', card)


@pytest.mark.parametrize(
    ("values", "chips"),
    [
        ({"q": "person"}, ["person x1 0.81"]),
        ({"q": "person", "sort": "person.area"}, ["person x1 0.75", "person.area 24%"]),
        ({"q": "width>=120", "sort": "-at"}, ["at 2026-01-02", "width 120"]),
        ({"q": "score>0.5 row=0"}, []),
        ({"sort": "person"}, ["person 1"]),
    ],
)
def test_a_card_shows_what_is_asked_about_and_sorted_by(
    client: httpx.Client, values: dict[str, str], chips: list[str]
) -> None:
    assert chips_of(client, **values) == chips


def test_a_card_shows_how_alike_it_is(client: httpx.Client) -> None:
    first, *_ = get(client, "/api/search", like="3")["hits"]
    assert chips_of(client, like="3") == [f"alike {first['similarity']:.3f}"]


def test_without_a_script_facets_are_a_link_away(client: httpx.Client) -> None:
    assert "palace" not in [value for value in page_of(client, "/", q="person").text if value == "palace"]
    page = page_of(client, "/", q="person", facets="1")
    assert "/?q=person+label%3Apalace" in page.values("href")


@pytest.mark.parametrize("query", ["person", "-person", "error:*", "width>100 OR person"])
def test_a_facet_leads_to_so_many_images(client: httpx.Client, query: str) -> None:
    found = get(client, "/api/search", q=query, facets="1")
    page = Page(client.get("/facets", params={"q": query}).text)
    links = page.values("href")
    numbers = [value["images"] for values in found["facets"].values() for value in values]
    assert len(links) == len(numbers) > 2
    for link, number in zip(links, numbers, strict=True):
        q = httpx.URL(str(link)).params["q"]
        assert get(client, "/api/search", q=q)["total"] == number


def test_a_year_or_a_month_that_was_chosen_can_be_taken_away(client: httpx.Client) -> None:
    run = get(client, "/api/runs")[1]["run"]
    answer = client.get("/facets", params={"run": run, "q": "dog taken=2022 taken=2022-03"}).text
    (times,) = re.findall(r"<h2>taken</h2>.*?</ul>", answer, re.DOTALL)
    assert re.findall(r'class="value">(.*?)<', times)[:3] == ["2022", "2022-03", "2022-03-01"]
    chosen = re.findall(r'href="(.*?)" rel="nofollow" aria-current="true"', times)
    assert chosen == [
        f"/?run={run}&amp;q=dog+taken%3D2022-03",
        f"/?run={run}&amp;q=dog+taken%3D2022",
    ]


def test_ten_thousand_hits_are_on_pages(client: httpx.Client) -> None:
    rows: list[str] = []
    run = get(client, "/api/runs")[1]["run"]
    first = page_of(client, "/", run=run, sort="row")
    assert "11,880 of 11,880 images" in first.words
    assert "1 to 48 of 11,880" in first.words
    last = page_of(client, "/", run=run, sort="row", page="248")
    assert "11,857 to 11,880 of 11,880" in last.words
    for page in (first, last):
        rows += [value.partition("?")[0] for value in page.values("href") if value.startswith("/image/")]
    assert (rows[0], rows[-1], len(rows)) == ("/image/0", "/image/11998", 48 + 24)
    assert "248 pages" in page_of(client, "/", run=run, page="249").words
    assert "248 pages" in page_of(client, "/", run=run, page="999999999999").words


def test_the_ways_from_an_image_lead_along_the_hits(client: httpx.Client) -> None:
    run = get(client, "/api/runs")[1]["run"]
    rows = [
        hit["manifest_index"] for hit in get(client, "/api/search", run=run, q="dog", limit="100")["hits"]
    ]
    for at in (0, 47, 48, 60):
        page = page_of(client, f"/image/{rows[at]}", run=run, q="dog", at=str(at))
        assert page.values("rel")[2:] == (["next"] if at == 0 else ["prev", "next"])
        links = [value for value in page.values("href") if value.startswith("/image/")]
        beside = [f"/image/{rows[at + step]}" for step in (-1, 1) if at + step >= 0]
        assert [link.partition("?")[0] for link in links] == beside


def test_a_query_that_is_none_is_shown_with_its_place(client: httpx.Client) -> None:
    answer = client.get("/", params={"q": "person persn dog"})
    assert answer.status_code == 400
    assert "<mark>persn</mark> dog" in answer.text
    assert "did you mean person" in answer.text
    found = client.get("/api/search", params={"q": "person persn dog"})
    assert (found.status_code, found.json()["start"], found.json()["end"]) == (400, 7, 12)
    assert client.get("/", params={"q": "person", "sort": "nothing"}).status_code == 400
    assert client.get("/", params={"q": "x" * 10_001}).status_code == 400
    assert client.get("/", params={"q": "(" * 500}).status_code == 400
    assert client.get("/facets", params={"q": "persn"}).status_code == 400


def test_who_finds_nothing_is_led_to_what_may_be_meant(client: httpx.Client) -> None:
    page = page_of(client, "/", q="person objects=mine9")
    assert "no image has objects 'mine9'; did you mean \"mine 6\"" in page.words
    assert "/?q=person+objects%3D%22mine+6%22" in page.values("href")
    assert "no image has" not in page_of(client, "/", q='person objects="mine 3"').words


def test_values_are_suggested(client: httpx.Client) -> None:
    found = get(client, "/api/suggest", q="person objects=M")
    assert len(found) == 8
    assert found[0] == {
        "name": "mine 0",
        "kind": "objects",
        "images": 1,
        "query": 'person objects="mine 0"',
    }


def test_an_image_shows_all_that_is_known(client: httpx.Client) -> None:
    page = page_of(client, "/image/0")
    for text in (
        'one & <two> "three".jpg',
        "palace 0.75",
        "3 objects",
        'a "big" <cat> & dog 0.94 20, 10 120, 91',
        "v1.5 cup",
        "From the manifest",
        "objects mine 0",
        "width 200",
        "id <0>, & more",
    ):
        assert text in page.words, text
    assert "outdoors scene 0.50" in page_of(client, "/image/2").words


def test_a_failed_image_shows_why(client: httpx.Client) -> None:
    page = page_of(client, "/image/5")
    assert "TRUNCATED at decode: it ends early" in page.words
    assert "img" not in page.tags
    listed = page_of(client, "/", q="error:*")
    assert "1 of 9 images" in listed.words
    assert "TRUNCATED it ends early" in listed.words


def test_what_python_calls_a_failure_is_on_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "/photos/failed.jpg: FileNotFoundError: [Errno 2] No such file or directory"
    monkeypatch.setattr(made_run, "FAILURE", message)
    output = write_run(tmp_path)
    make_index(output)
    with serving(output) as address, httpx.Client(base_url=address, timeout=60) as client:
        for path in ("/image/5", "/?q=error:*"):
            page = page_of(client, path)
            assert "the file ends before the picture does" in page.words
            assert "FileNotFoundError" not in page.words
            assert "Errno" not in page.words
        assert get(client, "/api/image/5")["failure"]["message"] == message


def test_programs_get_the_same(client: httpx.Client) -> None:
    found = get(client, "/api/search", q="person", sort="row", limit="2", offset="1", facets="1")
    assert (found["run"], found["query"], found["images"], found["failed"]) == ("run", "person", 8, 1)
    assert found["total"] == 3
    assert [hit["manifest_index"] for hit in found["hits"]] == [3, 6]
    assert found["hits"][0]["matches"]["person"]["count"] == 1
    assert found["facets"]["class"][0] == {"value": "person", "images": 3, "query": "class:person"}
    image = get(client, "/api/image/0")
    assert image["objects"][0] == {
        "name": 'a "big" <cat> & dog',
        "score": 0.9375,
        "x1": 20.5,
        "y1": 10.25,
        "x2": 120.5,
        "y2": 90.75,
        "tags": [],
    }
    assert image["labels"] == [{"label": "palace", "score": 0.75}, {"label": "cat", "score": 0.125}]
    assert get(client, "/api/image/2")["tags"][0] == {"tagger": "scene", "name": "indoors", "score": 0.9}
    assert get(client, "/api/image/5")["failure"] == {"stage": "decode", "message": "it ends early"}
    assert get(client, "/api/suggest", q="pers")[0]["query"] == "person"
    assert [run["images"] for run in get(client, "/api/runs")] == [8, 11_880]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/image/9", 404),
        ("/image/-1", 404),
        ("/image/99999999999999999999999999", 404),
        ("/image/0x1", 404),
        ("/image/..%2f..%2fetc%2fpasswd", 404),
        ("/photo/9", 404),
        ("/photo/-1", 404),
        ("/photo/1.5", 404),
        ("/photo/5", 404),
        ("/photo/" + "9" * 5000, 404),
        ("/photo//etc/passwd", 404),
        ("/photo/%2fetc%2fpasswd", 404),
        ("/photo/file:%2f%2f%2fetc%2fpasswd", 404),
        ("/photo/0?size=huge", 404),
        ("/photo/0?size=../large", 404),
        ("/static/app.py", 404),
        ("/static/../app.py", 404),
        ("/static/..%2fapp.py", 404),
        ("/static/%2e%2e/app.py", 404),
        ("/static/base.html.j2", 404),
        ("/api/image/9", 404),
        ("/api/image/x", 404),
        ("/api/search?limit=1001", 400),
        ("/api/search?limit=-1", 400),
        ("/api/search?offset=1e3", 400),
        ("/?run=nobody", 404),
        ("/?run=../etc", 404),
        ("/nothing", 404),
        ("/?q=%00", 400),
        ("/?q=" + "a" * 30_000, 414),
    ],
)
def test_an_address_that_is_none_is_refused(client: httpx.Client, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert "root:" not in answer.text
    assert "Traceback" not in answer.text


def test_no_parameter_names_a_file_or_a_place(client: httpx.Client) -> None:
    """The photo of a row is the same whatever else the address says."""
    plain = client.get("/photo/0").content
    for name in ("uri", "url", "path", "file", "src", "row"):
        assert client.get("/photo/0", params={name: "/etc/passwd"}).content == plain


@pytest.mark.parametrize("row", LABELLED)
def test_photos_are_upright_and_small(client: httpx.Client, row: int) -> None:
    answer = client.get(f"/photo/{row}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(answer.content)) as photo:
        assert photo.size == size_of(row)
        assert not photo.getexif()
    again = client.get(f"/photo/{row}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_markup_does_nothing_wherever_it_stands(tmp_path: Path) -> None:
    import pyarrow as pa

    evil = EVIL + "\u202egnp.exe"
    further = {"note <blink>": pa.array([evil] * 9), "kind": pa.array([EVIL, "</style>", "{{ 7*7 }}"] * 3)}
    output = write_run(tmp_path / "<blink>&", further=further)
    make_index(output)
    with serving(output) as address, httpx.Client(base_url=address, timeout=60) as client:
        for path in (
            "/",
            f"/?facets=1&q={EVIL.replace('&', '%26')}",
            "/image/0",
            "/image/5",
            "/?q=kind~script",
        ):
            text = client.get(path).text
            assert text.count("<script") == 1, path
            for bad in ("alert('\"", "<blink>", "<two>", "<cat>", "</style>", "\u202e"):
                assert bad not in text, (path, bad)
        page = page_of(client, "/image/0")
        assert f"note <blink> {EVIL} gnp.exe" in page.words
        assert f"kind {EVIL}" in page.words
        facets = client.get("/facets").text
        assert "<script" not in facets
        assert "{{ 7*7 }}" in facets
        assert client.get("/", params={"q": "x", "sort": EVIL}).text.count("<script") == 1
        assert client.get("/", params={"run": EVIL}).text.count("<script") == 1


def test_runs_are_switched_between(client: httpx.Client) -> None:
    _, other = (run["run"] for run in get(client, "/api/runs"))
    page = page_of(client, "/", q="person", sort="row")
    assert f"/?run={other}&q=person" in page.values("href")
    page = page_of(client, "/", run=other, q="person")
    assert "/?q=person" in page.values("href")
    assert ("input", "value", other) in page.attributes


@pytest.mark.parametrize("path", ["/", "/facets", "/image/0", "/photo/0", "/api/search", "/api/suggest"])
def test_who_has_gone_before_the_turn_costs_nothing(run_of_photos: str, path: str) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    scope |= {"raw_path": path.encode(), "root_path": "", "scheme": "http", "server": ("127.0.0.1", 80)}
    with open_runs([run_of_photos]) as runs, Photos() as photos:
        pages = Pages(runs, photos)
        asyncio.run(pages.app()(scope, receive, send))
    assert sent[0]["status"] == 499


def test_from_an_image_a_link_leads_to_what_looks_like_it(client: httpx.Client) -> None:
    page = page_of(client, "/image/3", q="person", at="2")
    assert "what looks like it" in page.words
    assert "/?like=3" in page.values("href")
    page = page_of(client, "/", like="3")
    assert "The 7 most alike of 8 images" in page.words
    assert re.search(r'row 3</a>\s+<a href="/">All images</a>', client.get("/", params={"like": "3"}).text)
    assert "All that the query finds" in page_of(client, "/", like="3", q="person").words
    assert "raylabel search" in page.words
    assert "--like 3" in page.words
    rows = [value.partition("?")[0] for value in page.values("href") if value and "at=" in value]
    found = get(client, "/api/search", like="3")
    assert [f"/image/{hit['manifest_index']}" for hit in found["hits"]] == rows
    assert (found["total"], found["compared"]) == (7, 8)
    similarities = [hit["similarity"] for hit in found["hits"]]
    assert similarities == sorted(similarities, reverse=True)
    narrowed = get(client, "/api/search", like="3", q="person")
    assert [hit["manifest_index"] for hit in narrowed["hits"]] == [2, 6]
    assert "looks like it" not in page_of(client, "/image/5").words  # it failed


@pytest.mark.parametrize("like", ["5", "99", "12345678901"])
def test_a_row_that_nothing_can_look_like_is_refused(client: httpx.Client, like: str) -> None:
    answer = client.get("/api/search", params={"like": like})
    assert answer.status_code == 400
    assert "has no embedding" in answer.json()["error"]
    assert "has no embedding" in page_of(client, "/", 400, like=like).words


def test_only_rows_are_looked_like(client: httpx.Client, run_of_photos: str) -> None:
    photo = f"{Path(run_of_photos).parent}/photos/turned.jpg"
    answer = client.get("/api/search", params={"like": photo})
    assert (answer.status_code, answer.json()["error"].partition(";")[0]) == (400, f"like: found {photo!r}")
    assert "allowed is the row of an image" in page_of(client, "/", 400, like="x").words
