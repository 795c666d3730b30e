from pathlib import Path

import pytest

from jobs.exports.classes import classes_of, read_class_map, split_names
from jobs.results.images import Box
from schemas.exceptions import SpecError

KNOWN = ("__background__", "person", "dog", "N/A", "cup, small", "N/A", "cat")


def test_the_classes_are_all_that_the_detector_knows_but_placeholders() -> None:
    assert classes_of(KNOWN).names == ("person", "dog", "cup, small", "cat")


def test_chosen_classes_keep_the_detectors_order() -> None:
    assert classes_of(KNOWN, ["cat", "person"]).names == ("person", "cat")


def test_two_names_can_become_one_and_a_class_without_a_name_is_left_out() -> None:
    classes = classes_of(KNOWN, new_names={"cat": "pet", "dog": "pet", "person": None})
    assert classes.names == ("pet", "cup, small")
    assert classes.ids == {"dog": 0, "cup, small": 1, "cat": 0}
    corners = (0.9, 1.0, 2.0, 3.0, 4.0)
    boxes = [
        Box(n, name, *corners) for n, name in enumerate(KNOWN) if name in ("person", "cat", "cup, small")
    ]
    assert classes.renamed(boxes) == (Box(1, "cup, small", *corners), Box(0, "pet", *corners))


def test_a_class_that_the_detector_lacks_is_refused_with_those_that_are_close() -> None:
    with pytest.raises(SpecError, match=r"--classes: the run's detector has no class 'dgo'; .*dog"):
        classes_of(KNOWN, ["dgo"])
    with pytest.raises(SpecError, match="--class-map: the run's detector has no class 'N/A'"):
        classes_of(KNOWN, new_names={"N/A": "x"})
    with pytest.raises(SpecError, match="leave no class"):
        classes_of(KNOWN, ["dog"], {"dog": None})


@pytest.mark.parametrize("value", ["", " ", ",", " , "])
def test_an_option_without_a_class_is_refused_and_does_not_mean_all(value: str) -> None:
    with pytest.raises(SpecError, match="--classes names no class; name at least one, or leave it out for"):
        split_names([value], KNOWN)
    assert split_names([], KNOWN) == []
    assert split_names(["dog", value], KNOWN) == ["dog"]


def test_names_are_split_at_commas_unless_a_class_has_one() -> None:
    assert split_names(["dog, cat", "cup, small"], KNOWN) == ["dog", "cat", "cup, small"]


def test_a_star_stands_for_all_classes_that_a_class_map_does_not_name() -> None:
    assert classes_of(KNOWN, new_names={"dog": "dog", "*": "other"}).names == ("other", "dog")
    assert classes_of(KNOWN, new_names={"dog": "pet", "*": None}).names == ("pet",)


def test_a_class_map_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("class,name\ndog,pet\ncat,\n")
    assert read_class_map(tmp_path / "map.csv") == {"dog": "pet", "cat": None}
    (tmp_path / "map.yaml").write_text("- dog")
    with pytest.raises(
        SpecError, match=r"--class-map .*map\.yaml: found a list; allowed is a line `name: new name`"
    ):
        read_class_map(tmp_path / "map.yaml")
    with pytest.raises(SpecError, match=r"--class-map .*none\.csv cannot be read: .*No such file"):
        read_class_map(tmp_path / "none.csv")
