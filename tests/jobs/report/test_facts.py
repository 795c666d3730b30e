from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from jobs.report.facts import (
    MAX_TIMES,
    MAX_TOGETHER,
    Facts,
    Files,
    Rate,
    TaggerCounts,
    Together,
    find_facts,
    step_s,
)
from jobs.results.sql import Database
from jobs.results.summary import TagCount
from tests.jobs.report.made_runs import at, box, failure, labelled, write_run
from tests.jobs.results.test_datasets import begun, publish
from tests.workers.tables.made_results import AT, CLASSIFIER, DETECTOR


def facts_of(output: Path | str) -> Facts:
    with Database({"": str(output)}) as database:
        return find_facts(database)


def test_the_numbers_are_those_of_the_tables_of_every_shard(output: str) -> None:
    """Every fourth image failed; image n is 100 + n by 80 pixels, of 1000 + n bytes, with n % 3 boxes."""
    publish(begun(output), 0, 1, 2)
    facts = facts_of(output)
    good = [n for n in range(50) if n % 4 != 3]
    boxes = [(n, k) for n in good for k in range(n % 3)]
    assert (facts.summary.labelled, facts.summary.failed, facts.summary.objects) == (38, 12, len(boxes))
    assert facts.files == Files(
        sum(1000 + n for n in good), sum((100 + n) * 80 for n in good), (("JPEG", len(good)),)
    )
    scores = Counter(int(20 * (0.9, 0.65)[k]) for _, k in boxes)
    assert facts.box_scores == tuple(scores[bin_] for bin_ in range(20))
    assert sum(facts.box_sizes) == len(boxes)
    assert facts.rate == Rate(AT, AT, 1, (50,))
    both, one = sum(n % 3 == 2 for n in good), sum(n % 3 > 0 for n in good)
    assert facts.together == Together(("person", "boat"), ((one, both), (both, both)))
    assert facts.taggers == (
        TaggerCounts("classifier", (TagCount("classifier", "palace", 25),), 1, 25),
        TaggerCounts(
            "scene", (TagCount("scene", "indoors", one), TagCount("scene", "outdoors", both)), 2, one + both
        ),
    )
    assert facts.tags == 25 + one + both


def test_boxes_are_counted_by_their_share_of_the_image_on_a_logarithmic_scale(tmp_path: Path) -> None:
    sides = [100, 99, 10, 9.9, 1, 0.2]  # of an image of 100 by 100: 100%, 98%, 1%, 0.98%, 0.01%, 0.0004%
    boxes = [box(n, 0, "cup", (0, 0, side, side)) for n, side in enumerate(sides)]
    write_run(tmp_path, {"boxes": boxes})
    expected = [0] * 15
    for bin_ in (14, 14, 9, 8, 3, 0):  # 3 bins for each factor of 10, from 0.001%
        expected[bin_] += 1
    assert facts_of(tmp_path).box_sizes == tuple(expected)


def test_pairs_are_counted_of_the_most_frequent_classes_only(tmp_path: Path) -> None:
    names = [f"class {n:02d}" for n in range(30)]
    images = [{name for place, name in enumerate(names) if n % (place + 1) == 0} for n in range(60)]
    rows = [labelled(n, (), dict.fromkeys(sorted(its), 2)) for n, its in enumerate(images)]
    write_run(tmp_path, {"labels": rows})
    together = facts_of(tmp_path).together
    shown = names[:MAX_TOGETHER]
    counts = {(a, b): sum({a, b} <= its for its in images) for a, b in product(shown, shown)}
    assert together == Together(tuple(shown), tuple(tuple(counts[a, b] for b in shown) for a in shown))


def test_one_class_is_no_pair(tmp_path: Path) -> None:
    write_run(tmp_path, {"labels": [labelled(0, (), {"cat": 3}), labelled(1, (), {})]})
    assert facts_of(tmp_path).together is None


def test_the_rate_counts_what_was_labelled_or_failed_in_each_step(tmp_path: Path) -> None:
    done = [0, 1, 59, 61, 61.5, 340]
    rows = [labelled(n, processed_at=at(second)) for n, second in enumerate(done)]
    write_run(tmp_path, {"labels": rows, "errors": [failure(9, "fetch", "TIMEOUT", "", failed_at=at(350))]})
    expected = [0] * 36
    for second in (*done, 350):
        expected[int(second // 10)] += 1
    assert facts_of(tmp_path).rate == Rate(at(0), at(350), 10, tuple(expected))


@pytest.mark.parametrize("seconds", [0, 1, 47, 48, 49, 3600, 10**5, 10**7, 10**9])
def test_any_length_of_time_has_few_columns(seconds: int) -> None:
    assert seconds // step_s(seconds) + 1 <= MAX_TIMES


def test_a_run_without_a_detector_or_taggers_has_no_numbers_of_them(tmp_path: Path) -> None:
    classifier = CLASSIFIER.model_copy(update={"tables": ()})
    write_run(tmp_path, {"labels": [labelled(0, [("cat", 0.5)])]}, {"classifier": classifier})
    facts = facts_of(tmp_path)
    assert (facts.taggers, facts.tags, facts.box_scores, facts.box_sizes, facts.together) == (
        (),
        0,
        (),
        (),
        None,
    )
    assert facts.summary.objects is None


def test_a_run_that_published_nothing_has_numbers_of_nothing(tmp_path: Path) -> None:
    begun(str(tmp_path))
    facts = facts_of(tmp_path)
    empty: Any = ()
    assert facts.files == Files(0, 0, ())
    assert (facts.box_scores, facts.box_sizes, facts.taggers) == (empty, empty, empty)
    assert (facts.together, facts.rate) == (None, None)


def test_a_detector_that_found_nothing_has_no_boxes(tmp_path: Path) -> None:
    write_run(tmp_path, {"labels": [labelled(0, (), {})]}, {"detector": DETECTOR})
    facts = facts_of(tmp_path)
    assert (facts.summary.objects, facts.box_scores, facts.summary.objects_per_image[0]) == (0, (), 1)
