import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.report.charts import WIDTH, Bar, Column, bars, columns, cut, matrix, scale, short

EVIL = "<script>alert('\"&')</script>"


def drawn(svg: str) -> ET.Element:
    """An SVG as a reader of XML has it: what is not well-formed is refused."""
    return ET.fromstring(svg)


def of_class(svg: str, name: str) -> list[dict[str, str]]:
    return [part.attrib for part in drawn(svg).iter() if part.get("class") == name]


def texts(svg: str) -> list[str]:
    return [part.text or "" for part in drawn(svg).iter() if part.tag in {"text", "title"}]


def test_bars_are_as_long_as_their_values_and_say_them() -> None:
    svg = bars([Bar("cat", 200, "200 images"), Bar("fox", 50, "50"), Bar("owl", 0, "0")], "label")
    assert [float(bar["width"]) for bar in of_class(svg, "label")] == [WIDTH, WIDTH / 4, 0]
    assert texts(svg) == [
        *("cat: 200 images", "cat", "200 images"),
        *("fox: 50", "fox", "50"),
        *("owl: 0", "owl", "0"),
    ]


def test_bars_without_a_value_are_drawn_all_the_same() -> None:
    assert [bar["width"] for bar in of_class(bars([Bar("cat", 0, "0")], "label"), "label")] == ["0.0"]


def test_a_long_name_is_cut_for_the_eye_and_whole_in_its_title() -> None:
    name = "long " * 40
    assert texts(bars([Bar(name, 1, "1")], "label"))[0] == f"{name}: 1"
    assert len(texts(bars([Bar(name, 1, "1")], "label"))[1]) < 60


def test_columns_are_as_high_as_their_values_on_round_ticks() -> None:
    values = [Column(0, "none"), Column(30, "a few"), Column(90, "most")]
    svg = columns(values, [(0, "0"), (1, "1")], ("images", "score"), "object", "what it says")
    heights = [float(column["height"]) for column in of_class(svg, "object")]
    assert heights == pytest.approx([0, 45, 135], abs=0.01)
    assert texts(svg) == [
        "images",
        "0",
        "20",
        "40",
        "60",
        "80",
        "100",
        *("none", "a few", "most"),
        "0",
        "1",
        "score",
    ]
    assert drawn(svg).get("aria-label") == "what it says"


def test_a_column_of_few_among_millions_is_seen() -> None:
    svg = columns([Column(10**7, "a"), Column(1, "b")], [], ("images", "x"), "label", "n")
    assert float(of_class(svg, "label")[1]["height"]) == 1


def test_a_matrix_has_a_cell_for_each_pair_darker_the_more_there_are() -> None:
    svg = matrix(["cat", "dog"], [[9, 4], [4, 0]], "n")
    cells = [float(cell["fill-opacity"]) for cell in of_class(svg, "cell")]
    assert cells[0] > cells[1] == cells[2] > cells[3]
    assert [text for text in texts(svg) if ": " in text] == [
        "cat: 9",
        "cat and dog: 4",
        "dog and cat: 4",
        "dog: 0",
    ]


@given(st.floats(1e-6, 1e12))
def test_an_axis_ends_at_or_after_the_value_with_a_few_even_ticks(highest: float) -> None:
    end, ticks = scale(highest, whole=False)
    assert end >= highest * (1 - 1e-9)
    assert end <= highest * 2
    assert 3 <= len(ticks) <= 7
    assert (ticks[0], ticks[-1]) == (0, end)


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [(1, [0, 1]), (2, [0, 1, 2]), (4, [0, 1, 2, 3, 4]), (6, [0, 2, 4, 6]), (23, [0, 5, 10, 15, 20, 25])],
)
def test_what_is_counted_has_whole_ticks(highest: int, ticks: list[int]) -> None:
    assert scale(highest, whole=True) == (ticks[-1], ticks)


def test_an_axis_without_a_value_ends_at_one() -> None:
    assert scale(0, whole=True) == (1, [0, 1])


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (950, "950"),
        (1000, "1k"),
        (1240, "1.2k"),
        (35_400, "35k"),
        (999_900, "1M"),
        (2e9, "2G"),
    ],
)
def test_numbers_on_axes_are_short(number: float, text: str) -> None:
    assert short(number) == text


def test_a_cut_text_is_one_line() -> None:
    assert (cut("a\nb", 9), cut("abcdef", 4)) == ("a b", "abc…")


def test_no_name_injects_anything() -> None:
    charts = [
        bars([Bar(EVIL, 1, EVIL)], "label"),
        columns([Column(1, EVIL)], [(0, EVIL)], (EVIL, EVIL), "label", EVIL),
        matrix([EVIL, EVIL], [[1, 1], [1, 1]], EVIL),
    ]
    for svg in charts:
        tags = {part.tag for part in drawn(svg).iter()}
        assert tags <= {"svg", "g", "rect", "path", "text", "title"}
        assert not re.search("<script|onload=", svg)
        assert any(EVIL in text for text in texts(svg))
