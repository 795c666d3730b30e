"""The queries of docs/search.md, each against what it means, counted image by image."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from jobs.search.build import make_index
from jobs.search.searcher import Searcher
from schemas.exceptions import QueryError
from tests.conftest import ROOT
from tests.jobs.search.documented_run import write_documented_run
from tests.jobs.search.plain import (
    Holds,
    Image,
    compared,
    contains,
    counted,
    failed_with,
    has,
    images_of,
    scored,
    sized,
    within,
)

PAGE = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
DOCUMENTED = re.findall(r"^\| `(.+?)` \|", PAGE, re.MULTILINE)
KINDS = ("class", "label", "tagger.scene")


def all_of(*parts: Holds) -> Holds:
    return lambda image: all(part(image) for part in parts)


def any_of(*parts: Holds) -> Holds:
    return lambda image: any(part(image) for part in parts)


def no(part: Holds) -> Holds:
    return lambda image: not part(image)


dog, cat, person, car = (has(name, *KINDS) for name in ("dog", "cat", "person", "car"))

MEANINGS: dict[str, Holds] = {
    "dog": dog,
    "dog person": all_of(dog, person),
    "dog OR cat": any_of(dog, cat),
    "dog -cat": all_of(dog, no(cat)),
    "(dog OR cat) person": all_of(any_of(dog, cat), person),
    '"traffic light"': has("traffic light", *KINDS),
    "*retriever": any_of(has("golden retriever", *KINDS), has("Labrador retriever", *KINDS)),
    "person>=2": counted("person", ">=", 2),
    "person=0 car": all_of(counted("person", "=", 0), car),
    "car.score>0.6": scored("car", ">", 0.6, *KINDS),
    "car.area>=20%": sized("car", ">=", 0.2),
    "label:espresso": has("espresso", "label"),
    'label:"golden retriever".score>=0.5': scored("golden retriever", ">=", 0.5, "label"),
    "tagger.scene:beach": has("beach", "tagger.scene"),
    "score<0.5": compared("score", "<", 0.5),
    "label=palace": compared("label", "=", "palace"),
    "width>=1000 format=PNG": all_of(compared("width", ">=", 1000), compared("format", "=", "PNG")),
    'photographer="Ann"': compared("photographer", "=", "Ann"),
    "photographer=A*": compared("photographer", "=", "Ann"),
    "taken>=2024-01-01 taken<2024-03": all_of(
        within("taken", ">=", date(2024, 1, 1), date(2024, 1, 2)),
        within("taken", "<", date(2024, 3, 1), date(2024, 4, 1)),
    ),
    "rating>4": lambda image: int(image.columns["rating"]) > 4,
    "uri~2024/": contains("uri", "2024/"),
    "row<100 objects>=3": all_of(compared("manifest_index", "<", 100), compared("object_count", ">=", 3)),
    "flagged -photographer=Bo": all_of(
        compared("flagged", "=", True), no(compared("photographer", "=", "Bo"))
    ),
    "error:NOT_FOUND": failed_with("NOT_FOUND"),
}


class Documented:
    """The run of the page, opened."""

    def __init__(self, output: str) -> None:
        self.images, self.searcher = images_of(output), Searcher(output)

    def found(self, query: str) -> list[int]:
        with self.searcher.search(query) as hits:
            return [hit.manifest_index for hit in hits.first(1000, sort="row")]


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Documented]:
    output = write_documented_run(str(tmp_path_factory.mktemp("documented")))
    make_index(output)
    documented = Documented(output)
    yield documented
    documented.searcher.close()


def test_every_query_of_the_page_has_its_meaning_here() -> None:
    assert list(MEANINGS) == DOCUMENTED
    assert len(DOCUMENTED) >= 20


@pytest.mark.parametrize("query", MEANINGS)
def test_a_query_of_the_page_finds_what_the_page_says(documented: Documented, query: str) -> None:
    def is_found(image: Image) -> bool:
        return (image.error is None or "error:" in query) and MEANINGS[query](image)

    expected = [row for row, image in sorted(documented.images.items()) if is_found(image)]
    assert documented.found(query) == expected
    assert 0 < len(expected) < 160


@pytest.mark.parametrize(
    ("query", "same"),
    [
        ("dog person", "dog AND person"),
        ("dog -cat", "dog NOT cat"),
        ("car.area>=20%", "car.area>=0.2"),
        ("photographer:Ann", 'photographer="Ann"'),
        ("tagger.scene:beach", "tagger:beach"),
        ("class:car>2", "car>2"),
        ("DOG photographer=ann", "dog photographer=Ann"),
        ("error:*", "error:NOT_FOUND OR error:TRUNCATED"),
        ("-photographer=Bo", "photographer!=Bo"),
        ("photographer=*", "photographer=Ann OR photographer=Bo"),
        ("-photographer=*", "-(photographer=Ann OR photographer=Bo)"),
    ],
)
def test_what_the_page_calls_the_same_is_the_same(documented: Documented, query: str, same: str) -> None:
    assert documented.found(query) == documented.found(same) != []


def test_the_refusal_of_the_page_is_what_is_said(documented: Documented) -> None:
    (shown,) = re.findall(r"    raylabel: (no label.*?)\n\n", PAGE, re.DOTALL)
    with pytest.raises(QueryError) as refused:
        documented.found("dgo person>=2")
    assert str(refused.value).split("\n") == [line.removeprefix("    ") for line in shown.split("\n")]


def test_the_page_is_what_the_readme_leads_to() -> None:
    assert "docs/search.md" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert Path(ROOT / "docs" / "search.md").is_file()
