import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jobs.results.status import print_status
from jobs.run.console import RunConsole
from workers import logs
from workers.printable import one_line, printable, printable_log
from workers.process.streams import print_error

HOSTILE = "\x1b[31mred\x1b[0m \x07\r\b\x9b2J \u202eevil\u2066 \ud83d"
SHOWN = r"\x1b[31mred\x1b[0m \x07\r\x08\x9b2J \u202eevil\u2066 \ud83d"


def test_what_would_act_on_a_terminal_is_shown_as_an_escape_and_all_else_as_it_is() -> None:
    assert printable(f"a\n  é 猫 👩‍🚀 \xa0 {HOSTILE}") == f"a\n  é 猫 👩‍🚀 \xa0 {SHOWN}"
    assert one_line("a\nb\x1b[31m") == "a b [31m"


def test_a_log_has_no_colours_and_its_tabs() -> None:
    assert printable_log("\x1b[1;36m(raylet)\x1b[0m a\tb\n\x1b[2Jc\r\n") == "(raylet) a\tb\n\\x1b[2Jc\\r\n"


@given(st.text(st.characters()))
def test_any_text_can_be_printed(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown.replace("\n", ""))
    assert one_line(text).isprintable()


class _Status:
    def facts(self) -> Iterator[tuple[str, str]]:
        yield "class", HOSTILE

    def to_json(self) -> str:
        return "{}"


def test_no_message_reaches_a_terminal_raw(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    print_error(HOSTILE)
    RunConsole(as_json=False).message(HOSTILE)
    print_status(_Status(), as_json=False)
    try:
        logs.configure()
        logging.getLogger("workers.anything").warning(HOSTILE[:-1])  # pytest-xdist sends log lines as UTF-8
    finally:
        logs.reset()
    out, err = capfd.readouterr()
    assert out.count(SHOWN) == 2
    assert err.count(SHOWN.removesuffix(r"\ud83d")) == 2
    assert SHOWN in err
    assert not set("\x1b\x07\x9b\u202e") & set(out + err)
