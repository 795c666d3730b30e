import pytest

from workers.process.output import plain_parts

LINK = "\x1b]8;;https://x.de\x1b\\link\x1b]8;;\x1b\\"
PRINTED = f"\x1b[31mré\x1b[0m \x1b]0;title\x07a {LINK} \x1b(B5\x1bMme\r\n".encode()


@pytest.mark.parametrize("size", range(1, 9))
def test_control_sequences_are_dropped_wherever_they_are_cut(size: int) -> None:
    parts = [PRINTED[start : start + size] for start in range(0, len(PRINTED), size)]
    assert "".join(plain_parts(parts)) == "".join(plain_parts([PRINTED]))
    assert "\x1b" not in "".join(plain_parts(parts))


def test_a_text_that_looks_like_an_endless_sequence_is_printed() -> None:
    parts = list(plain_parts([b"\x1b]0;", *[b"x" * 1000] * 9, b"\x07end"]))
    assert sum(map(len, parts[:-2])) > 4000
    assert parts[-2].endswith("end")
