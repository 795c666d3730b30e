import logging
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jobs.results.status import print_status
from jobs.run.console import RunConsole
from workers import logs
from workers.printable import message_of, one_line, printable, printable_log
from workers.process.streams import print_error

HOSTILE = "\x1b[31mred\x1b[0m \x07\r\b\x9b2J \u202eevil\u2066 \ud83d"
SHOWN = r"\x1b[31mred\x1b[0m \x07\r\x08\x9b2J \u202eevil\u2066 \ud83d"


def test_what_would_act_on_a_terminal_is_shown_as_an_escape_and_all_else_as_it_is() -> None:
    assert printable(f"a\n  é 猫 👩‍🚀 \xa0 {HOSTILE}") == f"a\n  é 猫 👩‍🚀 \xa0 {SHOWN}"
    assert one_line("a\nb\x1b[31m") == "a b [31m"


def test_a_log_has_no_colours_and_its_tabs() -> None:
    assert printable_log("\x1b[1;36m(raylet)\x1b[0m a\tb\n\x1b[2Jc\r\n") == "(raylet) a\tb\n\\x1b[2Jc\\r\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("407, message='No', url='http://me:SECRET@proxy:80'", "407, message='No', url='http://proxy:80'"),
        ("http://me:SECRET@proxy:port", "http://proxy:port"),
        ("http://me:SEC/RET?S@proxy:80/", "http://proxy:80/"),
        ("(https://me:SEC@RET@h/a@b.jpg)", "(https://h/a@b.jpg)"),
        ("URL('https://h/a%20b.jpg?sig=SECRET&x=1').", "URL('https://h/a%20b.jpg')."),
        ("to https://h/?SECRET, then FTP://h/a#SECRET: no", "to https://h/, then FTP://h/a: no"),
        (
            "Max retries exceeded with url: /a?key=SECRET (no route)",
            "Max retries exceeded with url: /a (no route)",
        ),
        ("az://c/a.jpg?sv=1&sig=SECRET", "az://c/a.jpg"),
        ("ftps://me:SECRET@h and https://me:SECRET@[::1]:80/a", "ftps://h and https://[::1]:80/a"),
        ("http://[::1]:80/a@b.jpg http://h:80/a:b@c", "http://[::1]:80/a@b.jpg http://h:80/a:b@c"),
        ("s3://b/what?.jpg, s3://b/#1.jpg: no 'a@b'?", "s3://b/what?.jpg, s3://b/#1.jpg: no 'a@b'?"),
        (" two\n  lines\t", "two lines"),
        ("", ""),
    ],
)
def test_an_exceptions_message_is_a_line_without_the_secrets_of_its_urls(text: str, shown: str) -> None:
    assert message_of(ValueError(text)) == shown


def test_an_exceptions_message_has_a_name_in_place_of_a_uri() -> None:
    error = ValueError("cannot open //me:SE CRET@h/a.jpg?SECRET")
    assert message_of(error, "//me:SE CRET@h/a.jpg?SECRET", "//h/a.jpg") == "cannot open //h/a.jpg"


@pytest.mark.parametrize("uri", ["/m/\ufeffhttps://me:secret@h/x?secret", "/m/https:\\\\me:secret@h\\x.jpg"])
def test_a_uri_is_replaced_as_python_quotes_it_too(uri: str) -> None:
    error = FileNotFoundError(2, f"gone: {uri}", uri)
    assert message_of(error, uri, "NAME") == "[Errno 2] gone: NAME: 'NAME'"


def test_a_huge_message_is_read_in_part_and_soon() -> None:
    start = time.process_time()
    assert len(message_of(ValueError("http://a:b/" * 1_000_000))) < 10_000
    assert time.process_time() - start < 2


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
