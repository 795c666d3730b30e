import pytest

from jobs.search.compiler import finds_failed
from jobs.search.language import parse


@pytest.mark.parametrize(
    ("query", "does"),
    [
        ("", False),
        ("error:*", True),
        ("dog OR -(error:NOT_FOUND x)", True),
        ("error=TIMEOUT", True),
        ("column:error", True),
        ("terror", False),
        ('uri~"error"', False),
        ("label:error", False),
    ],
)
def test_a_query_about_errors_finds_failed_images(query: str, does: bool) -> None:
    assert finds_failed(parse(query)) is does
