import pickle
import re

import pytest

import raylabel
from raylabel import errors
from raylabel.errors import failure_of
from schemas import exit_codes
from tests.conftest import ROOT


def test_the_package_has_every_exception_and_what_uses_them() -> None:
    assert set(raylabel.__all__) == {*errors.__all__, "Run", "label", "open_run"}
    for name in raylabel.__all__:
        assert getattr(raylabel, name).__doc__, name
    with pytest.raises(AttributeError, match="module 'raylabel' has no attribute 'train'"):
        _ = raylabel.train  # type: ignore[attr-defined]


def test_the_page_names_every_exception() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+Error)`", page)) == set(errors.__all__)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, raylabel.RaylabelError),
        (2, raylabel.SpecError),
        (3, raylabel.ManifestError),
        (4, raylabel.ModelError),
        (5, raylabel.StorageError),
        (6, raylabel.OutputConflictError),
        (7, raylabel.FailureBudgetError),
        (8, raylabel.ReconcileError),
        (11, raylabel.ClusterError),
        (99, raylabel.RaylabelError),
    ],
)
def test_a_failure_is_an_exception_of_its_kind_with_the_commands_message(
    code: int, kind: type[Exception]
) -> None:
    error = failure_of(code, "note: a line of a library's\nraylabel: out is damaged:\n  here\n")
    assert type(error) is kind
    assert str(error) == "out is damaged:\n  here"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (exit_codes.DEADLINE, "the deadline"),
        (exit_codes.RAY_DIED, "the end of Ray"),
        (exit_codes.CTRL_C, "Ctrl-C"),
        (exit_codes.TERMINATED, "SIGTERM"),
        (exit_codes.HUNG_UP, "SIGHUP"),
    ],
)
def test_a_stop_is_told_from_a_failure_and_says_what_stopped_it(code: int, reason: str) -> None:
    error = failure_of(code, f"raylabel: stopped by {reason}; committed work stays\n")
    assert isinstance(error, raylabel.StoppedError)
    assert (error.reason, str(error)) == (reason, f"stopped by {reason}; committed work stays")


def test_a_process_that_was_killed_is_a_stop_too() -> None:
    error = failure_of(-9, "")
    assert isinstance(error, raylabel.StoppedError)
    assert error.reason == "SIGKILL"
    assert str(error) == "the process of the job was killed by SIGKILL; the same call resumes"


def test_an_end_without_a_word_is_said_to_be_one() -> None:
    assert str(failure_of(1, "")) == "the process of the job ended with exit code 1 and did not say why"
    assert str(failure_of(1, "Traceback:\nValueError: 1\n")) == "Traceback:\nValueError: 1"


@pytest.mark.parametrize(
    "error",
    [raylabel.SpecError("what"), raylabel.StoppedError("what", "SIGTERM")],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_can_be_pickled_and_is_named_as_it_is_caught(error: raylabel.RaylabelError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.__dict__) == (type(error), "what", error.__dict__)
    assert type(error).__module__ == "raylabel"
