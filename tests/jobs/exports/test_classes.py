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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.yaml", "dog: pet\ncup, small: 'a: b'\ncat:\n"),
        ("map.csv", 'class,name\ndog,pet\n"cup, small",a: b\ncat,\n'),
        ("bom.csv", '\ufeffclass,name\r\ndog,pet\r\n"cup, small",a: b\r\ncat,\r\n'),
    ],
)
def test_a_class_map_is_yaml_or_csv(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_class_map(tmp_path / name) == {"dog": "pet", "cup, small": "a: b", "cat": None}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("map.yaml", "dog: [1]", r"found \[1\], which is no text"),
        ("map.yaml", "no: x", "found False, which is no text; write it in quotes"),
        ("map.yaml", "- dog", "allowed is `name: new name`"),
        ("map.yaml", "dog: [", "is not YAML"),
        ("map.csv", "dog,pet\n", "the first line must be class,name; found dog,pet"),
        ("map.csv", "class,name\ndog,pet,x\n", "line 2: allowed are 2 values"),
        ("map.csv", "class,name\ndog,a\ndog,b\n", "line 3: 'dog' is there twice"),
        ("map.csv", 'class,name\ndog,"pet\n', "line 2 is not CSV: unexpected end of data"),
        ("map.csv", 'class,name\ndog,"a\nb"\n', r"found 'a\\nb'; a name is one line of text"),
        ("map.yaml", 'dog: "a\\eb"', "a name is one line of text"),
        ("map.json", "{}", r"allowed are files that end in \.yaml, \.yml or \.csv"),
    ],
)
def test_a_class_map_that_is_none_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError, match=message):
        read_class_map(tmp_path / name)
    with pytest.raises(SpecError, match="cannot be read"):
        read_class_map(tmp_path / "none.csv")
