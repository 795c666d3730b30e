import pytest

from tests.shell import PYTHON, shell

ASK = "from workers.process.limits import low_limits; print(low_limits())"


@pytest.mark.parametrize(
    ("limit", "named"),
    [
        ("-n 200", ". `ulimit -n` limits this process to 200 open files: raise it"),
        ("-v 3000000", ". `ulimit -v` limits this process to 3,000,000 KB of address space: raise it"),
        ("-n 5000", ""),
    ],
)
def test_a_limit_of_the_shell_that_is_low_is_named(limit: str, named: str) -> None:
    done = shell(f"ulimit -S {limit}; {PYTHON}", ASK)
    assert (done.stdout, done.stderr) == (f"{named}\n", "")
