import pytest

from jobs.run.metrics import ascii_label


@pytest.mark.parametrize(
    ("output", "label"),
    [
        ("/data/a b/'c' \"d\" #1 50% [e] {f}?", "/data/a b/'c' \"d\" #1 50% [e] {f}?"),
        ("s3://bucket/résultats", "s3://bucket/r%C3%A9sultats"),
        ("/图片/ü", "/%E5%9B%BE%E7%89%87/%C3%BC"),
        ("/latin-\udce9", "/latin-%E9"),
    ],
)
def test_a_label_is_ascii_whatever_the_output_is_called(output: str, label: str) -> None:
    assert ascii_label(output) == label
