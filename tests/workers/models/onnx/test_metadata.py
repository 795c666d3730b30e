"""What the maker of a file wrote into it is text, however it is written."""

import json

import pytest

from schemas.exceptions import ModelError
from workers.models.onnx.metadata import Metadata


def of(**entries: str) -> Metadata:
    return Metadata("a.onnx", entries)


@pytest.mark.parametrize(
    "text",
    [
        "{0: 'cat', 1: 'dog'}",
        '{"1": "dog", "0": "cat"}',
        "['cat', 'dog']",
        '["cat", "dog"]',
        "('cat', 'dog')",
    ],
)
def test_class_names_are_read_in_json_and_as_python_prints_them(text: str) -> None:
    assert of(names=text).names() == ("cat", "dog")


@pytest.mark.parametrize("text", ["", "  "])
def test_no_class_names_are_none(text: str) -> None:
    assert of(names=text).names() is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("__import__('os').system('true')", "found \"__import__('os')"),
        ("{0: __import__('os')}", 'found "{0: __import__'),
        ("{0: 'cat', 2: 'dog'}", "found"),
        ("[1, 2]", "found '[1, 2]'"),
        ("[" * 100_000, "found"),
        ("{0: 'cat\x1b[31m'}", "class 0 is called 'cat [31m'"),
        (json.dumps(["cat\x1b[31m"]), "class 0 is called 'cat [31m'"),
        (json.dumps(["cat", " "]), "class 1 is called ' '"),
        (json.dumps(["x" * 300]), "class 0 is called 'xxx"),
        ("[" + "'x'," * 2_500_000 + "]", "it has 10,000,002 characters, over 1,048,576"),
    ],
)
def test_names_that_are_none_are_refused_and_never_executed(text: str, why: str) -> None:
    with pytest.raises(ModelError) as raised:
        of(names=text).names()
    assert str(raised.value).startswith(f"a.onnx: its metadata `names` gives no class names: {why}")
    assert str(raised.value).endswith(
        "state them as `categories:`, a list or a text file with one on each line"
    )
    assert len(str(raised.value)) < 400


def test_the_size_and_the_task_are_what_ultralytics_writes() -> None:
    assert of(imgsz="[320, 640]").size == (320, 640)
    assert of(imgsz="640").size == (640, 640)
    assert of(imgsz="[320]").size is None
    assert of(imgsz="[-1, True]").size is None
    assert of(imgsz="True").size is None
    assert of(imgsz="[8192, 8193]").size is None
    assert (of(task="detect").task, of(task="text").task) == ("detect", "")
    assert of(args="{'nms': True, 'half': False}").has_nms
    assert of(end2end="True").has_nms
    assert not of(args="{'nms': False}", end2end="").has_nms
