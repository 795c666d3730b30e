import csv
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import Classification, DecodedImage
from schemas.tasks import CLASSIFY, ClassifierSpec
from tests.workers.models import golden
from tests.workers.models.alone import Alone, unresolved
from tests.workers.models.pictures import EVAL, noise, one_thread, opened, photos
from workers.models.model import ClassifierModel, LoadedModel
from workers.models.registry import load
from workers.models.scores import top_k

SCORES = 1e-4
IMAGENET = EVAL / "imagenet63"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.mark.skipif(not IMAGENET.exists(), reason="the photos to measure against are not here")
def test_the_built_in_classifier_is_as_right_as_its_reference() -> None:
    with (IMAGENET / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    results = Alone(load(ClassifierSpec()), 16)([opened(IMAGENET / row["file"]) for row in rows])
    best = [x.label_ids.tolist() for x in results if isinstance(x, Classification)]
    truth = [int(row["label_id"]) for row in rows]
    assert sum(t == b[0] for t, b in zip(truth, best, strict=True)) == 58
    assert sum(t in b for t, b in zip(truth, best, strict=True)) == 60


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_demo_photos_are_labelled_as_recorded(batch_size: int) -> None:
    expected = golden.expected("classifier")
    found = golden.classify(batch_size)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name]["label_ids"] == expected[name]["label_ids"], name
        np.testing.assert_allclose(found[name]["scores"], expected[name]["scores"], atol=SCORES, rtol=0)


def test_bfloat16_gives_the_same_best_label_on_the_demo_photos() -> None:
    loaded = load(ClassifierSpec())
    results = Alone(loaded, 4, "bfloat16")(list(photos().values()))
    best = [x.label_ids[0] for x in results if isinstance(x, Classification)]
    assert best == [x["label_ids"][0] for x in golden.expected("classifier").values()]
    assert all(x.scores.dtype == np.float32 for x in results if isinstance(x, Classification))


LOGITS = st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=12)


@given(LOGITS, st.integers(1, 20), st.sampled_from(["softmax", "sigmoid"]))
def test_the_best_classes_come_first_and_ties_go_to_the_lower_index(
    logits: list[float], k: int, score_type: str
) -> None:
    ids, scores = top_k(torch.tensor([logits]), k, "softmax" if score_type == "softmax" else "sigmoid")
    assert ids.shape == scores.shape == (1, min(k, len(logits)))
    pairs = list(zip(scores[0].tolist(), ids[0].tolist(), strict=True))
    assert pairs == sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
    assert scores.dtype == torch.float32
    assert len(set(ids[0].tolist())) == ids.shape[1]
    assert all(0 <= score <= 1.000001 for score in scores[0].tolist())


class Faulty(nn.Module):
    """Answers with each image's first pixels, and fails as the first of them says."""

    def __init__(self, most: int = 100) -> None:
        super().__init__()
        self.most = most
        self.batches: list[int] = []

    def forward(self, batch: Tensor) -> Tensor:
        self.batches.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        first = batch[:, 0, 0, 0]
        if (first == 201).any():
            raise RuntimeError("a kernel failed")
        if (first == 202).any():
            return batch[:, :, 0, 0][:, :2]
        logits = batch[:, :, 0, 0].clone()
        logits[first == 203, 1] = torch.nan
        return logits


def classifier(module: nn.Module, batch_size: int = 8) -> Alone:
    model = ClassifierModel(
        module=module, transform=lambda image: image.float(), categories=("a", "b", "c"), score_type="sigmoid"
    )
    resolved = unresolved(CLASSIFY, model.categories)
    return Alone(LoadedModel(model, ClassifierSpec(top_k=2, score_type="sigmoid"), resolved), batch_size)


def marked(first: int) -> DecodedImage:
    image = noise(first)
    image.pixels[0, 0] = (first, 100, 50)
    return image


def test_only_the_images_that_fail_alone_are_failed() -> None:
    found = classifier(Faulty())([marked(x) for x in (10, 201, 20, 203, 202, 30)])
    assert [type(x) for x in found] == [
        Classification,
        ImageError,
        Classification,
        ImageError,
        ImageError,
        Classification,
    ]
    codes = [(x.stage, x.code) for x in found if isinstance(x, ImageError)]
    assert codes == [
        (Stage.CLASSIFY, ErrorCode.MODEL_ERROR),
        (Stage.CLASSIFY, ErrorCode.NON_FINITE),
        (Stage.CLASSIFY, ErrorCode.MODEL_ERROR),
    ]
    assert "a kernel failed" in str(found[1])


def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does() -> None:
    module = Faulty(most=2)
    found = classifier(module)([marked(x) for x in range(7)])
    assert all(isinstance(x, Classification) for x in found)
    assert module.batches == [7, 4, 2, 2, 3, 2, 1]


def test_one_image_that_does_not_fit_into_memory_is_a_failed_row() -> None:
    found = classifier(Faulty(most=0))([marked(1), marked(2)])
    assert [x.code for x in found if isinstance(x, ImageError)] == [ErrorCode.OUT_OF_MEMORY] * 2


def test_an_image_that_could_not_be_preprocessed_keeps_its_place_and_its_error() -> None:
    model = classifier(Faulty())
    inputs = [model.runner.preprocess(marked(x)) for x in (1, 2, 3)]
    error = ImageError(Stage.CLASSIFY, ErrorCode.INTERNAL, "made elsewhere")
    found = model.predict([inputs[0], error, inputs[2]])
    assert found[1] is error
    assert isinstance(found[0], Classification)
    assert isinstance(found[2], Classification)


def test_no_images_give_no_results() -> None:
    assert classifier(Faulty())([]) == []


def test_a_sliver_is_refused_before_it_is_blown_up() -> None:
    sliver = DecodedImage(np.zeros((1, 20_000, 3), np.uint8), "PNG", 1, "RGB", 1)
    (found,) = Alone(load(ClassifierSpec()), 1)([sliver])
    assert isinstance(found, ImageError)
    assert found.code == ErrorCode.UNSUPPORTED
    assert found.message == "20000x1 pixels: one side is over 200 times the other"


def test_one_pixel_and_read_only_pixels_are_labelled() -> None:
    pixel = DecodedImage(np.full((1, 1, 3), 200, np.uint8), "PNG", 1, "RGB", 1)
    frozen = noise(3)
    frozen.pixels.flags.writeable = False
    found = Alone(load(ClassifierSpec(top_k=1000)), 2)([pixel, frozen])
    for result in found:
        assert isinstance(result, Classification)
        assert result.label_ids.shape == (1000,)
        assert abs(float(result.scores.sum()) - 1) < SCORES
