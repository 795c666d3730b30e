"""Tags: thresholds, numbers, scores."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError, ModelError
from schemas.tasks import ClassesSpec, ClassifierSpec, TaggerSpec
from tests.workers.models.alone import Alone, unresolved
from tests.workers.models.pictures import noise, photos
from workers.models.model import ClassifierModel, LoadedModel
from workers.models.registry import load

LOGITS = {"a": 3.0, "b": 2.0, "c": 2.0, "d": -1.0}


class Fixed(nn.Module):
    """The same logits for each image, but NaN for one that begins with 0."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits = torch.tensor([list(LOGITS.values())]).repeat(len(batch), 1)
        logits[batch[:, 0, 0, 0] == 0, 1] = torch.nan
        return logits


def tagger(spec: ClassesSpec) -> Alone:
    model = ClassifierModel(
        module=Fixed(), transform=lambda image: image.float(), categories=tuple(LOGITS), score_type="sigmoid"
    )
    return Alone(LoadedModel(model, spec, unresolved(spec.task, model.categories)), 2)


def tags(**settings: Any) -> list[str]:
    image = noise(1)
    image.pixels[0, 0] = 1
    (found,) = tagger(TaggerSpec(model="m:f", **settings))([image])
    return [list(LOGITS)[number] for number in found.label_ids]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, "abcd"),
        ({"top_k": 2}, "ab"),
        ({"score_threshold": 0.9}, "a"),
        ({"score_threshold": 0.5}, "abc"),
        ({"score_threshold": 0}, "abcd"),
        ({"score_threshold": 1}, ""),
        ({"score_threshold": 0.5, "top_k": 2}, "ab"),
        ({"score_threshold": 0.5, "class_thresholds": {"a": 0.99, "d": 0.1}}, "bcd"),
        ({"score_threshold": 0.5, "class_thresholds": {"a": 0.99}, "top_k": 1}, "b"),
        ({"score_threshold": 1, "class_thresholds": {"c": 0.5}}, "c"),
    ],
)
def test_tags_are_the_classes_above_their_thresholds_best_first_as_many_as_asked_for(
    settings: dict[str, Any], kept: str
) -> None:
    assert "".join(tags(**settings)) == kept


def test_a_score_equal_to_its_threshold_is_not_above_it() -> None:
    score = float(torch.tensor(2.0).sigmoid())
    assert "".join(tags(score_threshold=score)) == "a"


def test_scores_are_those_of_the_models_training_unless_asked_otherwise() -> None:
    image = noise(1)
    image.pixels[0, 0] = 1
    logits = torch.tensor(list(LOGITS.values()))
    (sigmoid,) = tagger(TaggerSpec(model="m:f"))([image])
    (softmax,) = tagger(TaggerSpec(model="m:f", score_type="softmax"))([image])
    np.testing.assert_allclose(sigmoid.scores, logits.sigmoid().numpy(), atol=1e-7)
    np.testing.assert_allclose(softmax.scores, logits.softmax(0).numpy(), atol=1e-7)


def test_an_image_with_a_logit_that_is_no_number_fails_in_the_taggers_stage() -> None:
    bad, good = noise(1), noise(2)
    bad.pixels[0, 0], good.pixels[0, 0] = 0, 1
    found = tagger(TaggerSpec(model="m:f"))([bad, good])
    assert (found[0].stage, found[0].code) == (Stage.TAG, ErrorCode.NON_FINITE)
    assert found[1].label_ids.tolist() == [0, 1, 2, 3]


def test_a_threshold_of_a_class_that_the_model_lacks_is_refused_with_what_is_meant() -> None:
    for spec in (ClassifierSpec, TaggerSpec):
        with pytest.raises(
            ModelError, match="efficientnet_lite0 has no class 'tiger cats'; did you mean tiger"
        ):
            load(
                spec(
                    model="efficientnet_lite0",
                    score_threshold=0.5,
                    class_thresholds={"tiger cats": 0.1},
                )
            )


def test_the_classifiers_own_tags_are_read_beside_its_best_classes() -> None:
    loaded = load(ClassifierSpec(top_k=1, score_threshold=0.05))
    runner = Alone(loaded, 2).runner
    assert [predictor.task.name for predictor in runner.predictors] == ["classifier", "tagger"]
    (results,) = runner([photos()["coffee.png"]])
    assert not isinstance(results, ImageError)
    best, own = results
    assert len(best.label_ids) == 1
    assert own.label_ids[0] == best.label_ids[0]
    assert (own.scores > 0.05).all()
    values = runner.predictors[1].values(own)["rows of tags"]
    best = {"tagger": "classifier", "label_id": 967, "label": "espresso", "score": own.scores[0]}
    assert values[0] == {**best, "object_index": None}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, None),
        ({"score_type": "softmax"}, None),
        ({"score_type": "sigmoid"}, "scores of one class say nothing"),
        ({"score_type": "none"}, "its answers are logits, and no scores from 0 to 1"),
    ],
)
def test_scores_that_the_model_was_not_trained_for_are_noted(
    settings: dict[str, Any], why: str | None
) -> None:
    notes = load(ClassifierSpec(**settings)).resolved.notes
    said = (
        f"score_type is {settings.get('score_type')}, but efficientnet_lite0 was trained with softmax: {why}"
    )
    assert notes == ((said,) if why else ())


def test_a_fingerprint_does_not_depend_on_notes_and_tables() -> None:
    resolved = load(ClassifierSpec()).resolved
    other = resolved.model_copy(update={"notes": ("x",), "tables": ("tags",)})
    assert other.fingerprint == resolved.fingerprint
    assert other.identity() == resolved.identity()
