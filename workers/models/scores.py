"""From a network's answer to scores: what classifiers, taggers and embedders have in common."""

from typing import Any

from torch import Tensor, nn

from schemas.tasks import ClassesSpec
from workers.models.folding import Folding
from workers.models.model import ClassifierModel, ScoreType, ZeroShotModel

_ROUNDING = 1e-3
"""How far a score may be outside of 0 to 1, in float16."""


def head_of(model: ClassifierModel) -> nn.Module | None:
    """What makes logits of the features that a model's network gives; None: it gives logits."""
    return model.head if isinstance(model, ZeroShotModel) else None


def logits_in(outputs: Any, images: int, classes: int, head: nn.Module | None = None) -> Tensor:
    """The logits in a network's answer to some images, float (images, classes).

    Args:
        outputs: by name.
        images: how many.
        classes: of the model.
        head: see `head_of`.

    Raises:
        ValueError: it has none of that shape.
    """
    logits = outputs["logits"] if head is None else head(outputs["features"])
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


def adds_up(spec: ClassesSpec, model: ClassifierModel) -> bool:
    """Whether the scores of all classes add up to 1, as an image has one of them."""
    score_type = score_type_of(spec, model)
    return score_type == "softmax" or (score_type == "none" and model.exclusive)


def top_k(
    logits: Tensor, k: int, score_type: ScoreType, folding: Folding | None = None
) -> tuple[Tensor, Tensor]:
    """The best classes of each image.

    Args:
        logits: float (n, classes).
        k: how many classes, at most.
        score_type: "softmax" scores sum to 1, "sigmoid" scores each class alone, "none" takes what is there.
        folding: by a class map; then k counts names, and a class id is that of the best class of a name.

    Returns:
        Class ids, int64 (n, k), and scores, float32 (n, k), descending; equal scores by ascending id.
    """
    ordered, ids = sorted_scores(logits, score_type, folding)
    return ids[:, :k], ordered[:, :k]


def scores_of(logits: Tensor, score_type: ScoreType) -> Tensor:
    """The scores of all classes of each image, float32 (n, classes), 0 to 1.

    Raises:
        ValueError: they should be scores already, but are no numbers of 0 to 1.
    """
    logits = logits.float()
    if score_type == "softmax":
        return logits.softmax(dim=1)
    if score_type == "sigmoid":
        return logits.sigmoid()
    found = logits[logits.isfinite()]
    if found.numel() and not (found.min() >= -_ROUNDING and found.max() <= 1 + _ROUNDING):
        raise ValueError(
            f"its answers are no scores from 0 to 1: found {found.min():.3g} to {found.max():.3g}; "
            "`score_type: softmax` or `sigmoid` makes scores of logits"
        )
    return logits.clamp(0, 1)


def sorted_scores(
    logits: Tensor, score_type: ScoreType, folding: Folding | None = None
) -> tuple[Tensor, Tensor]:
    """The scores of all classes of each image, float32 (n, classes), descending, and their class ids.

    With a folding those of names, (n, names), on the CPU, and the class ids of the best class of each.
    """
    scores = scores_of(logits, score_type)
    if folding is None:
        ordered, ids = scores.sort(dim=1, descending=True, stable=True)
        return ordered, ids
    folded, best = folding.fold(scores)
    ordered, names = folded.sort(dim=1, descending=True, stable=True)
    return ordered, best.gather(1, names)
