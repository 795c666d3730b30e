from pathlib import Path

from jobs.report.examples import MOST, OF_EACH, Example, Gallery, choose, read_chosen
from jobs.report.facts import find_facts
from jobs.results.sql import Database
from tests.jobs.report.made_runs import box, labelled, write_run
from tests.jobs.results.test_datasets import begun
from tests.workers.tables.made_results import CLASSIFIER, DETECTOR


def galleries_of(output: Path) -> dict[str, Gallery]:
    with Database({"": str(output)}) as database:
        return {gallery.title: gallery for gallery in choose(database, find_facts(database))}


def shown(gallery: Gallery) -> dict[str, list[int]]:
    """Row numbers by the titles of groups."""
    return {group.title: [one.manifest_index for one in group.examples] for group in gallery.groups}


def put_run(output: Path) -> None:
    """Forty images: half are cats, of rising score; image n has n % 5 dogs."""
    rows, boxes = [], []
    for n in range(40):
        name = "cat" if n % 2 else f"label {n % 20}"
        score = 0.3 + n / 100
        rows.append(
            labelled(n, [(name, score), ("next", score - (40 - n) / 1000)], {"dog": n % 5} if n % 5 else {})
        )
        boxes += [box(n, k, "dog", (0, 0, 10 + n, 10 + k)) for k in range(n % 5)]
    write_run(output, {"labels": rows, "boxes": boxes})


def test_the_extremes_are_shown_the_most_extreme_first(tmp_path: Path) -> None:
    put_run(tmp_path)
    found = galleries_of(tmp_path)
    assert list(found) == [
        *("Any images", "Frequent labels", "Frequent classes", "Least certain labels", "Close calls"),
        *("Most objects", "Largest objects", "Smallest objects"),
    ]
    assert shown(found["Least certain labels"]) == {"": [0, 1, 2, 3, 4, 5]}
    assert shown(found["Close calls"]) == {"": [39, 38, 37, 36, 35, 34]}
    assert found["Close calls"].groups[0].examples[0].note == "0.001 apart"
    assert shown(found["Most objects"]) == {"": [4, 9, 14, 19, 24, 29]}
    largest, smallest = found["Largest objects"].groups[0], found["Smallest objects"].groups[0]
    assert largest.examples[0] == Example(39, 3, "6.37% of the image")
    assert smallest.examples[0] == Example(1, 0, "1.1% of the image")


def test_the_most_frequent_labels_and_classes_have_examples_of_different_images(tmp_path: Path) -> None:
    put_run(tmp_path)
    found = galleries_of(tmp_path)
    labels = shown(found["Frequent labels"])
    assert next(iter(labels)) == "cat"
    assert len(set(labels["cat"])) == OF_EACH
    assert all(n % 2 for n in labels["cat"])
    (dogs,) = shown(found["Frequent classes"]).values()
    assert len(set(dogs)) == OF_EACH


def test_what_is_found_once_is_not_frequent(tmp_path: Path) -> None:
    rows = [
        labelled(n, [("cat" if n < 2 else f"label {n}", 0.5)], {"dog": 1} if n < 2 else {}) for n in range(20)
    ]
    boxes = [box(n, 0, "cup" if n == 2 else "dog", (0, 0, 10, 10)) for n in range(3)]
    write_run(tmp_path / "some", {"labels": rows, "boxes": boxes})
    found = galleries_of(tmp_path / "some")
    assert {name: sorted(rows) for name, rows in shown(found["Frequent labels"]).items()} == {"cat": [0, 1]}
    assert list(shown(found["Frequent classes"])) == ["dog"]
    write_run(tmp_path / "none", {"labels": rows[1:]})
    assert "Frequent labels" not in galleries_of(tmp_path / "none")


def test_any_images_are_drawn_once_each_and_the_same_every_time(tmp_path: Path) -> None:
    put_run(tmp_path)
    drawn = shown(galleries_of(tmp_path)["Any images"])[""]
    assert len(set(drawn)) == len(drawn) == MOST["random"]
    assert drawn != sorted(drawn)
    assert shown(galleries_of(tmp_path)["Any images"])[""] == drawn


def test_a_run_of_few_images_shows_all_of_them_in_order(tmp_path: Path) -> None:
    rows = [labelled(n, [("cat", 0.9), ("dog", 0.0)], {"cup": 1}) for n in range(MOST["random"])]
    boxes = [box(n, 0, "cup", (0, 0, 10, 10)) for n in range(MOST["random"])]
    write_run(tmp_path, {"labels": rows, "boxes": boxes})
    (found,) = galleries_of(tmp_path).values()
    assert (found.title, shown(found)) == ("All images", {"": list(range(MOST["random"]))})


def test_without_a_classifier_or_a_detector_nothing_of_it_is_shown(tmp_path: Path) -> None:
    numbers = range(MOST["random"] + 1)
    labels = [labelled(n, [("cat", 0.5)]) for n in numbers]
    write_run(tmp_path / "a", {"labels": labels}, {"classifier": CLASSIFIER})
    objects = [labelled(n, (), {"dog": 1}) for n in numbers]
    boxes = [box(n, 0, "dog", (0, 0, 10, 10)) for n in numbers]
    write_run(tmp_path / "b", {"labels": objects, "boxes": boxes}, {"detector": DETECTOR})
    assert list(galleries_of(tmp_path / "a")) == ["Any images", "Frequent labels", "Least certain labels"]
    assert list(galleries_of(tmp_path / "b")) == [
        *("Any images", "Frequent classes", "Most objects", "Largest objects", "Smallest objects"),
    ]


def test_a_run_that_published_nothing_shows_nothing(tmp_path: Path) -> None:
    begun(str(tmp_path))
    assert galleries_of(tmp_path) == {}


def test_the_images_are_read_once_with_their_boxes(tmp_path: Path) -> None:
    put_run(tmp_path)
    with Database({"": str(tmp_path)}) as database:
        galleries = choose(database, find_facts(database))
        images = read_chosen(database, galleries)
        assert read_chosen(database, []) == {}
    chosen = {one.manifest_index for it in galleries for group in it.groups for one in group.examples}
    assert images.keys() == chosen
    assert all(len(image.boxes) == index % 5 for index, image in images.items())
