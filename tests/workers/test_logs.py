import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from workers import logs

_log = logging.getLogger("workers.anything")


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    logs.reset()


def test_a_line_has_its_time_level_module_run_and_unit(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("7f3a")
    _log.info("before")
    with logs.in_unit(17):
        _log.warning("row %d", 3)
    before, inside = capsys.readouterr().err.splitlines()
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"{time} INFO workers\.anything \[run 7f3a\] before", before)
    assert re.fullmatch(rf"{time} WARNING workers\.anything \[run 7f3a, unit 17\] row 3", inside)


def test_each_thread_has_its_own_unit(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    with logs.in_unit(17), ThreadPoolExecutor(1) as threads:
        threads.submit(_log.info, "elsewhere").result()
    assert capsys.readouterr().err.endswith("INFO workers.anything elsewhere\n")


def test_a_further_call_replaces_the_run_and_doubles_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    for run in ("first", "second", "second"):
        logs.configure(run)
    _log.info("once")
    (line,) = capsys.readouterr().err.splitlines()
    assert "[run second] once" in line


def test_only_our_loggers_are_configured_and_reset_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    logs.configure("7f3a")
    logging.getLogger("another").info("not ours")
    assert (root.level, root.handlers) == before
    logs.reset()
    _log.error("nothing shows this")
    assert capsys.readouterr().err == ""
