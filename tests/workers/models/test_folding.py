import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.ops import batched_nms, box_iou

from schemas.images import Detections
from workers.models.folding import DROPPED, Folding, overlaps
from workers.models.model import ScoreType
from workers.models.scores import sorted_scores, top_k

SCORE_TYPES: tuple[ScoreType, ...] = ("softmax", "sigmoid")

names = st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=12).filter(any)


def logits_of(seed: int, images: int, classes: int) -> torch.Tensor:
    return 3 * torch.randn(images, classes, generator=torch.Generator().manual_seed(seed))


def test_names_are_numbered_in_the_order_in_which_they_first_occur() -> None:
    folding = Folding(("cat", None, "dog", "cat"))
    assert folding.groups.tolist() == [0, DROPPED, 1, 0]
    assert folding.merges
    assert not Folding(("cat", None, None, "dog")).merges


def test_probabilities_of_merged_classes_add_up_and_the_best_class_stands_for_them() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]])
    added, ids = Folding(("cat", None, "dog", "cat"), add_up=True).fold(scores)
    assert torch.allclose(added, torch.tensor([[0.4, 0.2], [0.5, 0.25]]))
    assert ids.tolist() == [[3, 2], [0, 2]]
    greatest, same = Folding(("cat", None, "dog", "cat")).fold(scores)
    assert greatest.tolist() == [[scores[0, 3].item(), scores[0, 2].item()], [0.25, 0.25]]
    assert same.tolist() == ids.tolist()


@given(names=names, images=st.integers(1, 4), seed=st.integers(0, 999))
def test_no_score_is_lost(names: list[str | None], images: int, seed: int) -> None:
    logits = logits_of(seed, images, len(names))
    folding, greatest_of = Folding(tuple(names), add_up=True), Folding(tuple(names))
    kept = [number for number, name in enumerate(names) if name is not None]
    shares, sigmoids = logits.softmax(1), logits.sigmoid()
    added, best = folding.fold(shares)
    assert torch.allclose(added.sum(1), shares[:, kept].sum(1), atol=1e-6)
    assert bool((added <= 1).all())
    greatest, ids = greatest_of.fold(sigmoids)
    assert torch.equal(best, ids)
    for number in range(added.shape[1]):
        members = [index for index, group in enumerate(folding.groups) if group == number]
        assert torch.equal(greatest[:, number], sigmoids[:, members].amax(1))
        assert torch.allclose(added[:, number], shares[:, members].sum(1), atol=1e-6)
        assert all(index in members for index in ids[:, number].tolist())
    alone = [folding.fold(shares[n : n + 1])[0] for n in range(images)]
    assert torch.equal(added, torch.cat(alone))


@pytest.mark.parametrize("score_type", SCORE_TYPES)
@given(classes=st.integers(1, 40), seed=st.integers(0, 999))
def test_a_map_that_renames_alone_changes_no_bit(score_type: ScoreType, classes: int, seed: int) -> None:
    logits = logits_of(seed, 3, classes).round()  # some are equal
    folding = Folding(tuple(f"class {number}" for number in range(classes)))
    for plain, folded in zip(
        sorted_scores(logits, score_type), sorted_scores(logits, score_type, folding), strict=True
    ):
        assert torch.equal(plain, folded)


def test_the_best_names_are_counted_and_not_the_best_classes() -> None:
    logits = torch.tensor([[2.0, 1.9, 1.8, 1.0, 0.0]])
    ids, scores = top_k(logits, 2, "softmax", Folding(("cat", "cat", "cat", "dog", None), add_up=True))
    shares = logits.softmax(1)[0]
    assert ids.tolist() == [[0, 3]]
    assert torch.allclose(scores, torch.stack([shares[:3].sum(), shares[3]])[None])


def detections(seed: int, count: int, classes: int) -> Detections:
    """Boxes in a small field, many of which overlap."""
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 60, (count, 2))
    boxes = np.hstack([corners, corners + random.uniform(10, 40, (count, 2))]).astype(np.float32)
    scores = random.permutation(np.linspace(0.1, 1, count)).astype(np.float32)
    return Detections(boxes, scores, random.integers(0, classes, count).astype(np.int32))


def suppressed(found: Detections, groups: NDArray[np.int64], iou: float) -> Detections:
    """What torchvision's NMS keeps of boxes by their groups, in the order in which they were."""
    arrays = (torch.from_numpy(array) for array in (found.boxes, found.scores, groups[found.class_ids]))
    kept = np.sort(batched_nms(*arrays, iou).numpy())
    return Detections(found.boxes[kept], found.scores[kept], found.class_ids[kept])


@given(seed=st.integers(0, 9999), count=st.integers(0, 30))
def test_no_two_boxes_of_one_name_overlap_once_a_models_own_are_merged(seed: int, count: int) -> None:
    folding = Folding(("cat", "dog", "cat", None))
    by_class = suppressed(detections(seed, count, 4), np.arange(4), 0.5)
    found = folding.merge(by_class, 0.5)
    merged = suppressed(by_class, np.array([0, 1, 0, 3]), 0.5)
    assert found.boxes.tolist() == merged.boxes.tolist()
    assert found.scores.tolist() == merged.scores.tolist()
    assert found.class_ids.tolist() == merged.class_ids.tolist()


@given(seed=st.integers(0, 9999), count=st.integers(0, 30))
def test_boxes_stay_where_no_classes_are_merged(seed: int, count: int) -> None:
    found = detections(seed, count, 3)
    assert Folding(("cat", "dog", None)).merge(found, 0.0) is found


@given(seed=st.integers(0, 9999))
def test_overlaps_are_torchvisions(seed: int) -> None:
    boxes = torch.from_numpy(detections(seed, 12, 1).boxes).double()
    assert np.allclose(overlaps(boxes.numpy()), box_iou(boxes, boxes).numpy(), atol=1e-6)
