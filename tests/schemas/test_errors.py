import pytest

from schemas.errors import SENTENCES, ErrorCode, reason_of


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (
            "NOT_FOUND",
            "/photos/a.jpg: FileNotFoundError: [Errno 2] No such file or directory: '/photos/a.jpg'",
            "there is no such file",
        ),
        ("NOT_FOUND", "s3://b/a.jpg: NoSuchKey: it does not exist", "there is no such file"),
        (
            "UNSUPPORTED",
            "This GIF file cannot be decoded: SyntaxError: bad",
            "an image of this kind is not read",
        ),
        ("INTERNAL", "ZeroDivisionError", "it failed in a way that has no code of its own"),
        ("DENIED", "[Errno 13]", "its storage refuses access"),
        ("TRUNCATED", "The PNG file ends early: in IDAT.", "The PNG file ends early: in IDAT."),
        ("TOO_LARGE", "TIFF: 5 bytes", "TIFF: 5 bytes"),
        ("OTHER", "KeyError: 3", "KeyError: 3"),
    ],
)
def test_a_reason_is_a_sentence_without_what_python_calls_it(code: str, message: str, reason: str) -> None:
    assert reason_of(code, message) == reason


def test_every_code_has_a_sentence() -> None:
    assert list(SENTENCES) == list(ErrorCode)
