import re
from pathlib import Path

import pytest

from schemas.exceptions import ModelError
from schemas.tasks import ClassifierSpec
from workers.models.settings import given_categories


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfhare\r\nred fox\r\n", b"hare\nred fox\n\n \n", b" hare\nred fox"]
)
def test_a_file_of_class_names_has_one_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    assert given_categories(ClassifierSpec(categories=str(tmp_path / "names.txt"))) == ("hare", "red fox")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hare\n\nfox\n", "name 2 is blank; give every class of the model a name, in its order"),
        ("hare\nfox\nhare\n", "names 1 and 3 are both 'hare'; tell them apart, for example 'hare (3)'"),
        ("\n\n", "found no class name for efficientnet_lite0; expected one on each line"),
    ],
)
def test_names_that_are_blank_or_there_twice_are_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "names.txt"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=re.escape(f"categories: {file}: {message}")):
        given_categories(ClassifierSpec(categories=str(file)))
    if content.strip():
        with pytest.raises(ModelError, match=re.escape(f"categories: {message}")):
            given_categories(ClassifierSpec(categories=content.splitlines()))


def test_names_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    for content, message in {
        "hare\nchâteau\n".encode(
            "latin-1"
        ): r"line 2 is not UTF-8 text (byte b'\xe2'); save the file as UTF-8",
        "hare\n".encode("utf-16"): r"line 1 is not UTF-8 text (byte b'\xff'); save the file as UTF-8",
    }.items():
        file.write_bytes(content)
        with pytest.raises(ModelError, match=re.escape(f"categories: {file}: {message}")):
            given_categories(ClassifierSpec(categories=str(file)))
