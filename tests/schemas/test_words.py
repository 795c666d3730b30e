import pytest

from schemas.words import by_code, counted, raylabel_command


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ["image"], "0 images"),
        (1, ["image"], "1 image"),
        (1204, ["manifest row"], "1,204 manifest rows"),
        (2, ["process", "processes"], "2 processes"),
    ],
)
def test_one_of_a_thing_has_no_plural(number: int, words: list[str], expected: str) -> None:
    assert counted(number, *words) == expected


def test_codes_come_most_frequent_first_then_by_name() -> None:
    assert by_code({"TIMEOUT": 1, "NOT_FOUND": 1200, "DENIED": 1}) == "1,200 NOT_FOUND, 1 DENIED, 1 TIMEOUT"


def test_a_command_can_be_pasted_into_a_shell() -> None:
    assert raylabel_command("run", "s3://b/runs/x-1") == "`raylabel run s3://b/runs/x-1`"
    assert raylabel_command("show", "/my runs/$x") == "`raylabel show '/my runs/$x'`"
