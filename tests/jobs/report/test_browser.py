"""The page in a browser: Chromium without a window, where there is one."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

import jobs.report
from jobs.report.page import write_report
from tests.jobs.report.made_runs import at, box, failure, labelled, write_photo, write_run
from tests.jobs.report.test_history import add
from tests.workers.tables.made_results import record
from workers.ledger.directory import RunDirectory
from workers.storage.store import Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESKTOP = 390, 1280

MEASURE = r"""<script>
const splitWords = () => {
  const split = [], range = new Range();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.replace(/\S{40,}/g, it => " ".repeat(it.length));  // addresses
    for (const word of text.matchAll(/(?<![^\s._/=-])[^\s._/=-]{1,12}(?![^\s._/=-])/g)) {
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      const tops = [...range.getClientRects()].map(one => one.top);
      if (Math.max(...tops) > Math.min(...tops)) split.push(word[0]);
    }
  }
  return split;
};
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(one => one.open = true);
  const out = [...document.body.querySelectorAll("*:not(.scroll *, .boxes *)")].filter(one => {
    const {left, right} = one.getBoundingClientRect();
    return right > innerWidth + 0.5 || left < -0.5;
  });
  const shown = () => getComputedStyle(document.querySelector(".boxes")).display;
  const before = shown();
  document.querySelector("label[for=boxes]").click();
  const measured = {
    width: innerWidth,
    scrolls: document.documentElement.scrollWidth,
    out: out.map(one => one.outerHTML.slice(0, 200)),
    requests: performance.getEntriesByType("resource").map(it => it.name).filter(it => !/^data:/.test(it)),
    split: splitWords(),
    broken: [...document.images].filter(one => !one.naturalWidth).length,
    images: document.images.length,
    boxes: [before, shown()],
    paper: getComputedStyle(document.body).backgroundColor,
  };
  parent.postMessage(encodeURIComponent(JSON.stringify(measured)), "*");
});
</script>"""
"""What measures a copy of the page, which then may run scripts."""

FRAME = """<!doctype html><body style="margin: 0">
<script>addEventListener("message", it => document.body.setAttribute("data-measured", it.data));</script>
<iframe src="copy.html" style="border: 0; width: WIDTHpx; height: 2000px"></iframe>"""
"""A page with the copy in a frame: a window of Chromium is never narrower than 500 pixels."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
Measure = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all of its parts and with long names."""
    folder = tmp_path_factory.mktemp("report")
    photos = [write_photo(folder / f"{'long-name-' * 8}{n}.jpg", 640, 480) for n in range(14)]
    long, word = "a class with a rather long name " * 4, "unbreakable" * 20
    rows = [
        labelled(n, [(long, 0.9 - n / 20), (word, 0.05)], {long: 2, word: 1}, photo, processed_at=at(40 * n))
        for n, photo in enumerate(photos)
    ]
    corners = [(10, 20, 300, 400), (320, 40, 600, 200), (100, 100, 120, 130)]
    boxes = [
        box(n, k, name, corners[k], width=640, height=480, class_id=k, uri=str(photo))
        for n, photo in enumerate(photos)
        for k, name in enumerate((long, long, word))
    ]
    tags = [
        {"manifest_index": 0, "uri": str(photos[0]), "tagger": word, "label": name} for name in (long, word)
    ]
    errors = [failure(n, "fetch", "WORKER_CRASHED", word, uri=f"s3://{word}/{n}.jpg") for n in range(30)]
    tables = {"labels": rows, "boxes": boxes, "tags": tags, "errors": errors}
    spec = {**record().spec, "fetch": {"max_bytes": 10**8}, "decode": {"max_pixels": 10**8}}
    spec["manifest"] |= {"image_id_column": "a_long_name_of_a_column"}
    run_record = write_run(folder / "run", tables, command=f"raylabel run {word}", complete=False, spec=spec)
    add(RunDirectory.first(Store(str(folder / "run")), run_record), 1, 0, 60)
    return Path(write_report(str(folder / "run"), {"passed over": word}).where)


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """Measures a page by its HTML at a width, with further arguments of Chromium."""

    def measured(html: str, width: int, *arguments: str) -> dict[str, Any]:
        copy = tmp_path / "copy.html"
        copy.write_text(re.sub(r"<meta http-equiv=.*?>", "", html).replace("</head>", f"{MEASURE}</head>"))
        frame = tmp_path / "frame.html"
        frame.write_text(FRAME.replace("WIDTH", str(width)))
        dom = browse(tmp_path, frame, DESKTOP, "--dump-dom", *arguments)
        (found,) = re.findall(r'data-measured="([^"]*)"', dom)
        values: dict[str, Any] = json.loads(unquote(found))
        return values

    return measured


def browse(folder: Path, page: Path, width: int, *arguments: str) -> str:
    """What Chromium prints of a page."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
    options += ["--disable-background-networking", "--virtual-time-budget=5000"]
    options += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},2000"]
    done = subprocess.run(
        [str(CHROMIUM), *options, *arguments, page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_is_wider_than_the_screen_and_nothing_is_asked_for(
    page: Path, measure: Measure, width: int
) -> None:
    found = measure(page.read_text(), width)
    assert found["out"] == []
    assert (found["width"], found["scrolls"]) == (width, width)
    assert found["split"] == []
    assert found["requests"] == []
    assert found["images"] > 10
    assert found["broken"] == 0


def test_a_click_hides_the_boxes_without_a_script_of_the_page(page: Path, measure: Measure) -> None:
    assert measure(page.read_text(), DESKTOP)["boxes"] == ["block", "none"]


def test_what_measures_sees_what_is_too_wide_and_what_is_asked_for(page: Path, measure: Measure) -> None:
    bad = '<div style="width:2000px">wide</div><img src="http://127.0.0.1:9/a.png" alt="">'
    found = measure(page.read_text().replace("<main>", f"<main>{bad}"), PHONE)
    assert found["scrolls"] >= 2000
    assert any("wide" in it for it in found["out"])
    assert found["requests"] == ["http://127.0.0.1:9/a.png"]
    assert found["broken"] == 1


def test_it_is_dark_where_the_reader_wants_it_dark(page: Path, measure: Measure) -> None:
    light = measure(page.read_text(), DESKTOP)["paper"]
    dark = measure(page.read_text(), DESKTOP, "--blink-settings=preferredColorScheme=0")["paper"]
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(18, 21, 25)")


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_page_itself_is_drawn(page: Path, tmp_path: Path, width: int) -> None:
    browse(tmp_path, page, width, f"--screenshot={tmp_path / 'page.png'}")
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.width == width
        assert len(picture.convert("RGB").getcolors(10**7) or []) > 1000  # photos, not one colour of paper


def luminance(colour: str) -> float:
    """The relative luminance of a colour "#rrggbb": https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("on", "least"), [("paper", 4.5), ("card", 4.5)])
def test_texts_can_be_told_from_what_they_stand_on(scheme: str, on: str, least: float) -> None:
    css = Path(jobs.report.__file__).with_name("templates").joinpath("report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light if scheme == "light" else dark))
    for name in ("ink", "faint", "bad"):
        low, high = sorted((luminance(colours[name]), luminance(colours[on])))
        assert (high + 0.05) / (low + 0.05) >= least, name
