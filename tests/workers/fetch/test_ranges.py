import io
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from schemas.spec import FetchSpec
from tests.image_server import serving
from workers.fetch.ranges import RangeFile, ReadAhead, open_ahead, open_exactly

SPEC = FetchSpec(attempts=1, throttle_timeout_s=0)
DATA = bytes(n * n % 251 for n in range(300_000))


@pytest.mark.parametrize("kind", [RangeFile, ReadAhead])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(steps=st.lists(st.tuples(st.integers(0, 310_000), st.integers(-1, 90_000)), max_size=8))
def test_any_parts_are_read_as_of_a_plain_file(
    tmp_path: Path, kind: type[RangeFile], steps: list[tuple[int, int]]
) -> None:
    (tmp_path / "data").write_bytes(DATA)
    file, plain = kind(f"file://{tmp_path}/data", SPEC), io.BytesIO(DATA)
    for start, size in steps:
        assert file.seek(start) == plain.seek(start)
        assert file.read(size) == plain.read(size)
        assert file.read(512) == plain.read(512)
    assert (file.seek(-3, 2), file.read(), file.seek(-2, 1), file.tell()) == (
        299_997,
        DATA[-3:],
        299_998,
        299_998,
    )


@pytest.mark.parametrize("way", [open_exactly, open_ahead])
def test_a_file_that_is_not_there_is_not_found(tmp_path: Path, way: object) -> None:
    assert callable(way)
    for uri in (f"{tmp_path}/gone", f"file://{tmp_path}/gone"):
        with pytest.raises(ImageError) as missing:
            way(uri, SPEC)
        assert missing.value.code is ErrorCode.NOT_FOUND


def test_the_bound_on_images_is_none_on_what_is_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    small = SPEC.model_copy(update={"max_bytes": 10})
    assert open_exactly(f"file://{tmp_path}/data", small).read() == DATA


def test_a_web_server_that_knows_no_ranges_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    with serving(tmp_path) as server:
        file = RangeFile(server.url("data"), SPEC)
        file.seek(1000)
        with pytest.raises(ImageError) as refused:
            file.read(100)
        assert refused.value.code is ErrorCode.UNSUPPORTED


def test_a_server_that_did_not_answer_fails_the_next_files_alike_and_at_no_cost(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.answer = lambda *_: 500
        url = server.url("a.tar")
        first, *others = [failure(url) for _ in range(20)]
        assert len(server.asked) == SPEC.attempts
    assert {error[:2] for error in others} == {first[:2]}
    assert len({frames for *_, frames in others}) == 1


def failure(url: str) -> tuple[str, int, int]:
    """What a file's failure says, its attempts, and the frames of its traceback."""
    with pytest.raises(ImageError) as failed:
        RangeFile(url, SPEC)
    return str(failed.value), failed.value.attempts, len(traceback.extract_tb(failed.value.__traceback__))
