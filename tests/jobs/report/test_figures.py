from typing import Any

import pytest

from jobs.report.facts import Facts, Files, Rate, TaggerCounts, Together
from jobs.report.figures import Figure, figures_of, rate_figure
from jobs.results.summary import ClassCount, LabelCount, Summary, TagCount
from tests.jobs.report.made_runs import at
from tests.jobs.report.test_charts import of_class, texts

NOTHING: Any = ()
EMPTY = Summary("run", 0, 0, None, NOTHING, NOTHING, 0, NOTHING, 0, NOTHING, NOTHING, NOTHING)
FULL = Summary(
    output="run",
    labelled=12_345,
    failed=0,
    objects=4_000,
    images=(),
    labels=(LabelCount("cat", 2_000), LabelCount("fox", 5)),
    distinct_labels=1_000,
    classes=(ClassCount("dog", 1, 4_000),),
    distinct_classes=1,
    errors=(),
    scores=(*(0,) * 15, 10, 20, 30, 40, 5),
    objects_per_image=(5, 10, *(0,) * 8, 1),
)


def facts(summary: Summary, **more: Any) -> Facts:
    rest: dict[str, Any] = {"taggers": (), "box_scores": (), "box_sizes": (), "together": None, "rate": None}
    return Facts(summary=summary, files=Files(0, 0, ()), **{**rest, **more})


def by_title(found: Facts) -> dict[str, Figure]:
    return {figure.title: figure for figure in figures_of(found)}


def test_a_chart_says_how_many_of_all_it_shows_and_which_share_they_are() -> None:
    figures = by_title(facts(FULL))
    assert list(figures) == [
        "Labels: 2 of 1,000",
        "Classes of objects",
        "Scores of labels",
        "Objects per image",
    ]
    assert texts(figures["Labels: 2 of 1,000"].svg)[1:3] == ["cat", "2,000 · 16%"]
    assert texts(figures["Labels: 2 of 1,000"].svg)[4:6] == ["fox", "5 · <0.1%"]
    assert texts(figures["Classes of objects"].svg)[1:3] == ["dog", "4,000 in 1 image"]


def test_a_histogram_has_its_values_as_a_table_and_its_peak_in_words() -> None:
    scores = by_title(facts(FULL))["Scores of labels"]
    assert (scores.heads, len(scores.values)) == (("score", "images"), 20)
    assert scores.values[18] == ("0.90 to 0.95", "40")
    assert 'aria-label="Scores of labels: most images, 40, at 0.90 to 0.95"' in scores.svg
    assert by_title(facts(FULL))["Objects per image"].values[-1] == ("10+", "1")


def test_sizes_are_named_by_their_shares_of_the_image() -> None:
    sizes = by_title(facts(EMPTY, box_sizes=tuple(range(15))))["Sizes of boxes"]
    assert sizes.values[0] == ("under 0.0022%", "0")
    assert sizes.values[3] == ("0.01% to 0.022%", "3")
    assert sizes.values[14] == ("46% to 100%", "14")
    marks = [text for text in texts(sizes.svg) if text.endswith("%")]
    assert marks == ["0.001%", "0.01%", "0.1%", "1%", "10%", "100%"]


def test_each_tagger_has_a_chart() -> None:
    scene = TaggerCounts("scene", (TagCount("scene", "indoors", 9),), 3, 20)
    own = TaggerCounts("classifier", (TagCount("classifier", "cat", 7),), 1, 7)
    figures = by_title(facts(FULL, taggers=(own, scene)))
    assert {"Tags of classifier", "Tags of scene: 1 of 3"} <= figures.keys()


def test_pairs_are_listed_from_the_most_frequent_without_the_classes_themselves() -> None:
    together = Together(("a", "b", "c"), ((9, 1, 4), (1, 8, 0), (4, 0, 7)))
    pairs = by_title(facts(EMPTY, together=together))["Classes in one image"]
    assert pairs.values == (("c", "a", "4"), ("b", "a", "1"), ("c", "b", "0"))


def test_the_speed_is_that_of_each_step() -> None:
    figure = rate_figure(Rate(at(0), at(110), 30, (60, 30, 0, 15)))
    assert figure.values == (
        *(("0", "60", "2.0"), ("30 s", "30", "1.0"), ("1:00 min", "0", "0.0"), ("1:30 min", "15", "0.5")),
    )
    heights = [float(column["height"]) for column in of_class(figure.svg, "object")]
    assert [height / heights[0] for height in heights] == pytest.approx([1, 0.5, 0, 0.25], abs=0.01)
    assert {"0", "30 s", "1:00 min", "1:30 min", "2:00 min"} < set(texts(figure.svg))


@pytest.mark.parametrize("step_s", [1, 3600, 86400 * 7])
def test_marks_of_time_are_all_different(step_s: int) -> None:
    for number in range(2, 49):
        figure = rate_figure(Rate(at(0), at(step_s * number - 1), step_s, (1,) * number))
        starts = [start for start, _, _ in figure.values]
        assert len(set(starts)) == number


def test_of_a_moment_there_is_no_speed() -> None:
    assert rate_figure(Rate(at(0), at(0), 1, (7,))) is None


def test_nothing_has_no_chart() -> None:
    assert figures_of(facts(EMPTY)) == []
