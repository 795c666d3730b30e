"""The page as a person uses it, in Chromium without a window, where that and Playwright are there."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.exports.made_run import PHOTOS
from tests.jobs.serve.conftest import serving

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect, sync_playwright

PHONE = 390


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Of this file alone: while Playwright runs, no other test can run an event loop."""
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of which no script fails, and which asks for nothing elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    failed: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda it: failed.extend([it.text] if "Content Security" in it.text else []))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert failed == []
    assert all(url.startswith(("http://127.0.0.1:", "data:,")) for url in asked)


def search(page: Page, query: str) -> None:
    page.locator("#q").fill(query)
    page.keyboard.press("Enter")


def test_a_person_searches_narrows_down_opens_an_image_and_comes_back(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("#count")).to_have_text("8 of 8 images")
    search(page, "person")
    expect(page.locator("#count")).to_have_text("3 of 8 images")
    expect(page.get_by_role("status")).to_have_text("3 of 8 images")
    assert page.url.endswith("/?q=person")
    expect(page.locator("#q")).to_be_focused()
    page.locator("#facets a", has_text="PNG").click()
    expect(page.locator("#count")).to_have_text("1 of 8 images")
    expect(page.locator("#q")).to_have_value("person format=PNG")
    page.locator("#facets a[aria-current]", has_text="PNG").click()
    expect(page.locator("#count")).to_have_text("3 of 8 images")
    page.locator(".card a").first.click()
    expect(page.locator(".facts h1")).to_have_text(PHOTOS[6])
    expect(page.locator(".large img")).to_have_js_property("naturalWidth", 90)
    page.locator("[rel=next]").click()
    expect(page.locator(".facts h1")).to_have_text("same.jpg")
    for _ in range(2):
        page.go_back()
    expect(page.locator("#count")).to_have_text("3 of 8 images")
    expect(page.locator(".card")).to_have_count(3)
    page.go_back()
    page.go_back()
    page.go_back()
    expect(page.locator("#count")).to_have_text("8 of 8 images")
    expect(page.locator("#q")).to_have_value("")
    page.go_forward()
    expect(page.locator("#q")).to_have_value("person")


def test_names_are_suggested_and_taken_by_keys(page: Page, address: str) -> None:
    page.goto(address)
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("-indoors na")
    option = page.get_by_role("option", name="naïve, café")
    expect(option).to_be_visible()
    expect(page.locator("#q")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    assert page.locator("#q").get_attribute("aria-activedescendant") == option.get_attribute("id")
    page.keyboard.press("Enter")
    expect(page.locator("#q")).to_have_value('-indoors "naïve, café" ')
    page.keyboard.type("pers")
    expect(page.get_by_role("option", name="person")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#names")).to_be_hidden()
    expect(page.locator("#q")).to_be_focused()
    page.locator("#q").fill("-indoors pers")
    page.get_by_role("option", name="person").click()
    expect(page.locator("#q")).to_have_value("-indoors person ")
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text("2 of 8 images")


def test_values_are_suggested_and_taken(page: Page, address: str) -> None:
    page.goto(address)
    page.locator("#q").press_sequentially("person objects=m")
    option = page.get_by_role("option", name="mine 6")
    expect(option).to_be_visible()
    option.click()
    expect(page.locator("#q")).to_have_value('person objects="mine 6" ')
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text("1 of 8 images")


def test_the_keyboard_goes_everywhere(page: Page, address: str) -> None:
    page.goto(f"{address}/?q=person")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".card a").nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".card a").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".around")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("[rel=next]")).to_have_count(0)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("[rel=next]")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#count")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".card a").nth(0)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.locator("#q")).to_be_focused()


def test_a_wrong_query_is_marked_and_can_be_mended(page: Page, address: str) -> None:
    page.goto(address)
    search(page, "person persn")
    expect(page.locator("mark")).to_have_text("persn")
    expect(page.get_by_role("alert").first).to_contain_text("did you mean person")
    search(page, "person")
    expect(page.locator("#count")).to_have_text("3 of 8 images")


def test_what_may_be_meant_is_said_and_a_click_away(page: Page, address: str) -> None:
    page.goto(address)
    search(page, "person objects=mine66")
    meant = 'no image has objects \'mine66\'; did you mean "mine 6", "mine 7" or "mine 8"? Search for that'
    expect(page.get_by_role("status")).to_have_text(f"0 of 8 images; {meant}")
    page.get_by_role("link", name="Search for that").click()
    expect(page.locator("#count")).to_have_text("1 of 8 images")
    expect(page.locator("#q")).to_have_value('person objects="mine 6"')


def test_ten_thousand_hits_are_paged_through(page: Page, address: str) -> None:
    page.route("**/photo/*", lambda route: route.fulfill(status=404, body="gone"))
    page.goto(address)
    page.locator(".runs a").nth(1).click()
    expect(page.locator("#count")).to_have_text("11,880 of 11,880 images")
    page.locator(".pager [rel=next]").click()
    expect(page.locator(".pager span")).to_have_text("49 to 96 of 11,880")
    page.locator(".pager a", has_text="Last").click()
    expect(page.locator(".pager span")).to_have_text("11,857 to 11,880 of 11,880")
    page.go_back()
    expect(page.locator(".pager span")).to_have_text("49 to 96 of 11,880")
    page.locator("#sort").select_option("width")
    expect(page.locator(".pager span")).to_have_text("1 to 48 of 11,880")
    assert "sort=width" in page.url
    page.locator("nav.views .bad").click()
    expect(page.locator("#count")).to_have_text("120 of 12,000 images")
    expect(page.locator("#facets a", has_text="NOT_FOUND")).to_contain_text("120")


def test_boxes_can_be_hidden_and_stay_so(page: Page, address: str) -> None:
    page.goto(f"{address}/?q=person")
    expect(page.locator(".boxes").first).to_be_visible()
    page.locator("label[for=boxes]").click()
    expect(page.locator(".boxes").first).to_be_hidden()
    page.locator(".card a").first.click()
    expect(page.locator(".large .boxes")).to_be_hidden()


def test_the_command_is_copied(page: Page, address: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{address}/?q=person+-indoors")
    page.locator(".copy").click()
    expect(page.locator(".copy")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("raylabel search ")
    assert copied.endswith("'person -indoors'")


def test_an_image_that_is_gone_has_its_reason_in_its_place(page: Page, own_run: str) -> None:
    (Path(own_run).parent / "photos" / PHOTOS[2]).unlink()
    with serving(own_run) as address:
        page.goto(f"{address}/?q=person&sort=row")
        expect(page.locator(".card .why")).to_have_text("the image is not there any more")
        assert page.locator(".card img").count() == 2
        page.locator(".card a").first.click()
        expect(page.locator(".large .why")).to_have_text("the image is not there any more")


def test_where_the_server_is_stopped_the_page_says_so_and_keeps_what_it_shows(
    page: Page, run_of_photos: str
) -> None:
    with serving(run_of_photos) as address:
        page.goto(f"{address}/?q=person")
        expect(page.locator(".card")).to_have_count(3)
        page.wait_for_load_state("networkidle")
    search(page, "indoors")
    expect(page.locator("#lost")).to_be_visible()
    expect(page.locator("#lost")).to_contain_text(f"raylabel serve {run_of_photos}")
    expect(page.locator(".card")).to_have_count(3)
    page.locator(".card a").first.click()
    expect(page.locator(".card")).to_have_count(3)
    assert page.url.endswith("/?q=person")


@pytest.mark.parametrize("path", ["/?q=person", "/", "/image/0?at=0", "/?q=error:*", "/?q=persn"])
def test_nothing_is_wider_than_a_phone(page: Page, address: str, path: str) -> None:
    page.set_viewport_size({"width": PHONE, "height": 844})
    page.goto(address + path)
    page.wait_for_load_state("networkidle")
    if page.locator(".jump").count():
        page.locator(".jump a").first.click()
        expect(page.locator("#facets h2").first).to_be_in_viewport()
        expect(page.locator("#facets")).to_be_focused()
        back = page.get_by_role("link", name="Back to the images")
        expect(back).to_be_in_viewport()
        back.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        expect(page.locator(".card").first).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE


def test_it_is_dark_where_the_reader_wants_it_dark(page: Page, address: str) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(address)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(18, 21, 25)"]


def test_without_a_script_links_and_forms_do_it(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    search(page, "person")
    expect(page.locator("#count")).to_have_text("3 of 8 images")
    page.locator("#facets a").click()
    page.locator("#facets a", has_text="PNG").click()
    expect(page.locator("#count")).to_have_text("1 of 8 images")
    page.locator(".card a").first.click()
    expect(page.locator(".facts h1")).to_have_text(PHOTOS[6])
    context.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script that finds what keeps people out."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    command = [str(npm), "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder)]
    command += ["--fetch-retries=0", "--fetch-timeout=20000", "axe-core@4"]
    if npm is None or subprocess.run(command, capture_output=True, timeout=120, check=False).returncode:
        pytest.skip("axe-core cannot be installed")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
@pytest.mark.parametrize("path", ["/?q=person", "/image/0?at=0", "/image/5", "/?q=error:*", "/?q=persn"])
def test_axe_finds_nothing(page: Page, address: str, axe: str, path: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address + path)
    page.wait_for_load_state("networkidle")
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    assert [(one["id"], one["impact"], [node["html"] for node in one["nodes"]]) for one in found] == []


def test_axe_finds_nothing_in_suggestions_either(page: Page, address: str, axe: str) -> None:
    page.set_viewport_size({"width": PHONE, "height": 844})
    page.goto(address)
    page.locator("#q").press_sequentially("pers")
    expect(page.get_by_role("option", name="person")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.evaluate(axe)
    assert [one["id"] for one in page.evaluate("axe.run()")["violations"]] == []
