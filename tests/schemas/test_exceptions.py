import pickle
import re

import pytest

from schemas import exceptions
from schemas.errors import ErrorCode, Stage
from schemas.exceptions import DamagedFileError, ImageError, ProcessDiedError, QueryError, RaylabelError

CLASSES = [
    value
    for value in vars(exceptions).values()
    if isinstance(value, type) and issubclass(value, RaylabelError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_exception_survives_the_way_through_ray(kind: type[RaylabelError]) -> None:
    coded: dict[type[RaylabelError], RaylabelError] = {
        ImageError: ImageError(Stage.FETCH, ErrorCode.TIMEOUT, "30 s", attempts=4),
        DamagedFileError: DamagedFileError("commit", "out/c.json", "it is empty", "Run again", "c.json"),
        QueryError: QueryError("no dgo", 0, 3),
        ProcessDiedError: ProcessDiedError(Stage.DETECT, ErrorCode.TIMEOUT, "60 s", row=7),
    }
    error = coded.get(kind) or kind("what, why")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (str(back), back.__dict__) == (str(error), error.__dict__)


def test_the_tree_in_the_docstring_names_every_class() -> None:
    named = re.findall(r"[├└]── (\w+)", exceptions.__doc__ or "")
    assert sorted(named) == sorted(kind.__name__ for kind in CLASSES if kind is not RaylabelError)


def test_the_codes_that_may_pass_are_retryable() -> None:
    retryable = {code.value for code in ErrorCode if code.retryable}
    passing = {"EXPIRED", "THROTTLED", "TIMEOUT", "NETWORK", "CORRUPT", "OUT_OF_MEMORY", "WORKER_CRASHED"}
    assert retryable == passing
