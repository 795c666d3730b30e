import re

import pytest

from workers.class_map import assert_known, new_name, parse_class_map


def test_the_same_name_is_used_whatever_names_the_class() -> None:
    assert [new_name(name, {"dog": "pet", "tie": None}) for name in ("dog", "tie", "cup")] == [
        "pet",
        None,
        "cup",
    ]
    assert [new_name(name, {"dog": "pet", "*": "other"}) for name in ("dog", "cup")] == ["pet", "other"]
    assert new_name("cup", {"dog": "dog", "*": None}) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.yaml", "dog: pet\ncup, small: 'a: b'\ncat:\n'*': other"),
        ("map.YML", "{dog: pet, 'cup, small': 'a: b', cat: '', '*': other}"),
        ("map.csv", 'class,name\ndog,pet\n"cup, small",a: b\ncat,\n*,other\n'),
        ("bom.csv", '\ufefffrom, to\r\ndog, pet\r\n"cup, small",a: b\r\ncat,\r\n*,other\r\n'),
    ],
)
def test_a_class_map_is_yaml_or_csv(name: str, text: str) -> None:
    expected = {"dog": "pet", "cup, small": "a: b", "cat": None, "*": "other"}
    assert parse_class_map(text.encode(), name, "it") == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "map.yaml",
            "dog: [1]",
            "it: found a list as the new name of 'dog'; allowed is one name, or none to leave the class out",
        ),
        (
            "map.yaml",
            "dog: {a: b}",
            "it: found keys and values as the new name of 'dog'; allowed is one name",
        ),
        ("map.yaml", "dog: no", "it: found false, which YAML reads as no text; write it in quotes"),
        ("map.yaml", "dog: 7", "it: found 7, which YAML reads as no text; write it in quotes"),
        ("map.yaml", "- dog", "it: found a list; allowed is a line `name: new name` for each class, in YAML"),
        (
            "map.yaml",
            "dog",
            "it: found one value; allowed is a line `name: new name` for each class, in YAML",
        ),
        ("map.yaml", "", "it: found an empty file; allowed is a line `name: new name` for each class"),
        ("map.yaml", "{}", "it names no class; give at least one, or leave it out"),
        ("map.yaml", "? \n: x", "it: found a new name without the name of a class before it"),
        (
            "map.yaml",
            "dog: [",
            "it is not YAML: expected the node content, but found '<stream end>' in line 1",
        ),
        ("map.yaml", "a: b\nc: \x01", "it is not YAML: a character that no text has (#x0001) in line 2"),
        ("map.yaml", "a: b\nc: 2024-02-30", "it is not YAML: '2024-02-30' is none of its type, in line 2"),
        (
            "map.yaml",
            "dog: a\ndog: b",
            "it: the key 'dog' is there twice in line 2, column 1; name each class once",
        ),
        ("map.yaml", 'dog: "a\\eb"', r"it: found 'a\x1bb'; a name is one line of text"),
        ("map.csv", "", "it: the first line must be class,name (or from,to); found nothing"),
        ("map.csv", "dog,pet\n", "it: the first line must be class,name (or from,to); found dog,pet"),
        ("map.csv", "class,name\n", "it names no class; give at least one, or leave it out"),
        ("map.csv", "class,name\ndog,pet,x\n", "it, line 2: allowed are 2 values, a class and its new name"),
        ("map.csv", "class,name\ndog,a\ndog ,b\n", "it, line 3: 'dog' is there twice"),
        ("map.csv", 'class,name\ndog,"pet\n', "it, line 2 is not CSV: unexpected end of data"),
        ("map.csv", 'class,name\ndog,"a\nb"\n', r"it: found 'a\nb'; a name is one line of text"),
        ("map.json", "{}", "it: allowed are files that end in .yaml, .yml or .csv"),
    ],
)
def test_a_class_map_that_is_none_is_refused_in_one_sentence(name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse_class_map(text.encode(), name, "it")
    assert str(caught.value).isprintable()


def test_a_class_map_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(ValueError, match=r"it is not UTF-8 text .*; save it as UTF-8"):
        parse_class_map("class,name\nch\xe2teau,x\n".encode("latin-1"), "a.csv", "it")


def test_a_name_that_no_class_has_is_refused_with_those_that_are_close() -> None:
    known = [f"class {number}" for number in range(1200)]
    with pytest.raises(ValueError, match=r"it: X has no class 'clas 7'; it has 1,200, such as .*class 7"):
        assert_known("clas 7", known, "it", "X")
    with pytest.raises(ValueError, match=r"such as class 0, class 1, .*class 9, …$"):
        assert_known("zzz", known, "it", "X")
    assert_known("class 7", known, "it", "X")
