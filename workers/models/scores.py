"""From a network's answer to scores: what classifiers, taggers and embedders have in common."""

from typing import Any

from torch import Tensor

from schemas.tasks import ClassesSpec
from workers.models.folding import Folding
from workers.models.model import ClassifierModel, ScoreType


def logits_in(outputs: Any, images: int, classes: int) -> Tensor:
    """The logits in a network's answer to some images, float (images, classes).

    Raises:
        ValueError: it has none of that shape.
    """
    logits = outputs["logits"]
    if not isinstance(logits, Tensor) or logits.shape != (images, classes):
        answer = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the classifier answered with {answer}, expected {(images, classes)}")
    return logits


def finite(values: Tensor) -> list[bool]:
    """Whether each row of a tensor (n, m) has no NaN and no infinity."""
    rows: list[bool] = values.isfinite().all(dim=1).tolist()
    return rows


def score_type_of(spec: ClassesSpec, model: ClassifierModel) -> ScoreType:
    """How logits become scores."""
    return spec.score_type or model.score_type


def top_k(
    logits: Tensor, k: int, score_type: ScoreType, folding: Folding | None = None
) -> tuple[Tensor, Tensor]:
    """The best classes of each image.

    Args:
        logits: float (n, classes).
        k: how many classes, at most.
        score_type: "softmax" scores sum to 1, "sigmoid" scores each class alone.
        folding: by a class map; then k counts names, and a class id is that of the best class of a name.

    Returns:
        Class ids, int64 (n, k), and scores, float32 (n, k), descending; equal scores by ascending id.
    """
    ordered, ids = sorted_scores(logits, score_type, folding)
    return ids[:, :k], ordered[:, :k]


def sorted_scores(
    logits: Tensor, score_type: ScoreType, folding: Folding | None = None
) -> tuple[Tensor, Tensor]:
    """The scores of all classes of each image, float32 (n, classes), descending, and their class ids.

    With a folding those of names, (n, names), on the CPU, and the class ids of the best class of each.
    """
    logits = logits.float()
    scores = logits.softmax(dim=1) if score_type == "softmax" else logits.sigmoid()
    if folding is None:
        ordered, ids = scores.sort(dim=1, descending=True, stable=True)
        return ordered, ids
    folded, best = folding.fold(scores, add_up=score_type == "softmax")
    ordered, names = folded.sort(dim=1, descending=True, stable=True)
    return ordered, best.gather(1, names)
