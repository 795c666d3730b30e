import pytest

from tests.benchmarks import results
from tests.benchmarks.results import FEEDING, FLOOR, RAYLABEL, WHOLE, Found, Measured

CAT = (15, 0.9, 10.0, 10.0, 50.0, 50.0)
DOG = (16, 0.8, 60.0, 10.0, 90.0, 50.0)


def runs(contest: str, name: str, *rates: float) -> list[Measured]:
    return [Measured(contest, name, number, rate, 5.0, 60.0) for number, rate in enumerate(rates)]


def test_ratios_are_of_medians() -> None:
    measured = [*runs(WHOLE, RAYLABEL, 20, 24, 90), *runs(WHOLE, "Daft, tuned", 1, 16, 17)]
    assert results.goals(results.medians(measured)) == [("whole job: raylabel to Daft, tuned", 1.5, 1.0)]


def test_the_floor_is_decode_and_then_the_fastest_float32_runtime() -> None:
    measured = [
        *runs(WHOLE, RAYLABEL, 24),
        *runs(FEEDING, RAYLABEL, 300),
        *runs(FLOOR, "decode: pillow", 400),
        *runs(FLOOR, "decode: simplejpeg", 600),
        *runs(FLOOR, "models: onnx", 40),
        *runs(FLOOR, "models: openvino_bf16", 90),
    ]
    whole, feeding = results.goals(results.medians(measured))
    assert whole[1] == pytest.approx(24 / 37.5)
    assert "decode: simplejpeg, models: onnx: 37.5 images/s" in whole[0]
    assert feeding[1] == pytest.approx(0.5)


def test_an_object_has_one_counterpart_and_order_does_not_matter() -> None:
    ours = Found(1, 0.5, [CAT, DOG])
    assert results.agree(ours, Found(1, 0.505, [DOG, (15, 0.895, 10.9, 10.0, 50.0, 49.2)]))
    assert not results.agree(ours, Found(1, 0.5, [CAT, CAT]))
    assert not results.agree(ours, Found(1, 0.5, [CAT]))
    assert not results.agree(ours, Found(2, 0.5, [CAT, DOG]))
    assert not results.agree(ours, Found(1, 0.52, [CAT, DOG]))
    assert not results.agree(ours, Found(1, 0.5, [CAT, (16, 0.8, 62.0, 10.0, 90.0, 50.0)]))


def test_a_photo_that_only_one_has_differs() -> None:
    one = Found(1, 0.5, [])
    assert results.differing({"a": one, "b": one}, {"b": one, "c": one}) == 2


def test_a_contestant_that_failed_has_no_line_and_no_ratio() -> None:
    text = results.page(runs(WHOLE, "Daft, tuned", 10, 12), {}, "here")
    assert "| Daft, tuned | 11.0 (10.0 to 12.0) |  | 5.0 | 60.0 |  |" in text
    assert "What it means" not in text
