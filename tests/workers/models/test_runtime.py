from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from schemas.exceptions import ModelError
from schemas.images import Classification, Detections
from schemas.tasks import ClassifierSpec, DetectorSpec
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import CPU, one_thread, photos
from workers.models.model import ClassifierModel
from workers.models.registry import load
from workers.models.runtime import OnnxNetwork, assert_same, prepare_module

FLOAT32 = torch.float32


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


class Dark(nn.Module):
    """Answers dark batches otherwise than bright ones, which a trace of one of them cannot know."""

    def forward(self, batch: Tensor) -> Tensor:
        means = batch.mean(dim=(2, 3))
        return means if batch.mean() > 0.5 else -means


def shrunk(image: Tensor) -> Tensor:
    return image[:, :32, :32].float() / 255


def halved_brightness(image: Tensor) -> Tensor:
    """A picture that is wider than high is dark."""
    return shrunk(image) * (0.5 if image.shape[2] > image.shape[1] else 2)


def small(
    module: nn.Module, network: str | None = "", transform: Callable[[Tensor], Tensor] = shrunk
) -> ClassifierModel:
    return ClassifierModel(module=module, transform=transform, categories=("r", "g", "b"), network=network)


def test_the_built_in_models_answer_by_onnx_runtime_as_by_torch_and_no_batch_matters() -> None:
    images = list(photos().values())
    answers = []
    runs: list[tuple[Literal["torch", "onnxruntime"], int]]
    runs = [("torch", 1), ("onnxruntime", 1), ("onnxruntime", 4)]
    for runtime, size in runs:
        classifier = Alone(load(ClassifierSpec()), size, runtime=runtime)
        detector = Alone(load(DetectorSpec(score_threshold=0.1)), size, runtime=runtime)
        answers.append((classifier(images), detector(images)))
    (labels, objects), *others = answers
    assert sum(len(x.scores) for x in objects if isinstance(x, Detections)) > 20
    for other_labels, other_objects in others:
        for one, other in zip(labels, other_labels, strict=True):
            assert isinstance(one, Classification)
            assert isinstance(other, Classification)
            np.testing.assert_array_equal(one.label_ids, other.label_ids)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5, rtol=0)
        for mine, theirs in zip(objects, other_objects, strict=True):
            assert isinstance(mine, Detections)
            assert isinstance(theirs, Detections)
            np.testing.assert_array_equal(mine.class_ids, theirs.class_ids)
            np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-5, rtol=0)
            np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=0.01, rtol=0)


def test_what_runs_the_built_in_models_by_itself_on_a_cpu_is_onnx_runtime() -> None:
    classifier, detector = load(ClassifierSpec()).model, load(DetectorSpec()).model
    assert isinstance(prepare_module(classifier, CPU, FLOAT32, "auto"), OnnxNetwork)
    assert isinstance(prepare_module(detector, CPU, FLOAT32, "auto").get_submodule("network"), OnnxNetwork)


def test_a_model_that_names_no_network_is_run_by_torch() -> None:
    module = nn.Flatten()
    assert prepare_module(small(module, network=None), CPU, FLOAT32, "auto") is module
    with pytest.raises(ModelError, match=r"compute\.runtime is onnxruntime, .*: it names no part"):
        prepare_module(small(module, network=None), CPU, FLOAT32, "onnxruntime")


def test_a_network_whose_trace_answers_otherwise_is_run_by_torch(caplog: pytest.LogCaptureFixture) -> None:
    model = small(Dark(), transform=halved_brightness)
    assert prepare_module(model, CPU, FLOAT32, "auto") is model.module
    why = "torch runs the ClassifierModel, not ONNX Runtime: its answers are off by "
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].getMessage().startswith(why)
    with pytest.raises(ModelError, match=r"its answers are off by .*Allowed here: auto, torch"):
        prepare_module(model, CPU, FLOAT32, "onnxruntime")


def test_a_network_whose_inputs_have_no_fixed_shape_is_run_by_torch() -> None:
    model = small(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), transform=lambda x: x.float())
    assert prepare_module(model, CPU, FLOAT32, "auto") is model.module


def test_bfloat16_is_computed_by_torch() -> None:
    model = load(ClassifierSpec()).model
    assert prepare_module(model, CPU, torch.bfloat16, "auto") is model.module
    with pytest.raises(ModelError, match="it is for float32 on a CPU, found bfloat16 on cpu"):
        prepare_module(model, CPU, torch.bfloat16, "onnxruntime")


def test_rows_without_an_order_are_compared_as_a_set() -> None:
    scores, boxes = (torch.rand(2, 5, n, generator=torch.Generator().manual_seed(n)) for n in (3, 4))
    order = torch.tensor([3, 1, 0, 4, 2])
    moved = (scores[:, order] + 1e-5, boxes[:, order])
    assert_same((scores, boxes), moved, unordered=True)
    with pytest.raises(ValueError, match="its answers are off by"):
        assert_same((scores, boxes), moved)
    with pytest.raises(ValueError, match="its answers are off by"):
        assert_same((scores, boxes), (moved[0], boxes), unordered=True)
    doubled = tuple(part[:, [0, 0, 2, 3, 4]] for part in (scores, boxes))
    for one, other in [(doubled, (scores, boxes)), ((scores, boxes), doubled)]:
        with pytest.raises(ValueError, match="its answers are off by"):
            assert_same(one, other, unordered=True)
    with pytest.raises(ValueError, match="its answers are off by nan"):
        assert_same((scores, boxes), (scores, boxes * torch.nan), unordered=True)
