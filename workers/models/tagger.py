"""Tags: every class whose score is high enough, of a classifier or of further ones."""

from collections.abc import Mapping
from typing import Any

import torch

from schemas.exceptions import ImageError
from schemas.images import Classification
from schemas.tasks import TAG, ClassesSpec, TaggerSpec
from workers.models.folding import folding_of
from workers.models.model import ClassifierModel, LoadedModel
from workers.models.predictor import ModelInput, Predictor
from workers.models.scores import adds_up, finite, head_of, logits_in, score_type_of, sorted_scores
from workers.models.settings import thresholds_by_class
from workers.tables.results import tag_values, tag_values_of_objects


class Tagger(Predictor[Classification]):
    """A model whose classes are tags; see `Predictor`. So are the classifier's, where it has a threshold."""

    task = TAG

    def __init__(self, name: str, loaded: LoadedModel[ClassifierModel, ClassesSpec]) -> None:
        super().__init__(name, loaded)
        self._tagger = name.rpartition(".")[2]
        self._score_type = score_type_of(loaded.spec, loaded.model)
        self._classes = len(loaded.model.categories)
        self._head = head_of(loaded.model)
        self._folding = folding_of(loaded.model.names, add_up=adds_up(loaded.spec, loaded.model))
        self._most = loaded.spec.most if isinstance(loaded.spec, TaggerSpec) else None
        self._thresholds = None
        if loaded.spec.score_threshold is not None:
            thresholds = thresholds_by_class(loaded.spec, loaded.model)
            self._thresholds = torch.tensor(thresholds, dtype=torch.float32)

    @staticmethod
    def apply(spec: ClassesSpec, model: ClassifierModel) -> dict[str, object]:
        """See `Predictor.apply`."""
        thresholds_by_class(spec, model)  # refuses one of a class that the model lacks
        settings = spec.model_dump(include={"score_threshold", "class_thresholds"})
        most = {"top_k": spec.most} if isinstance(spec, TaggerSpec) else {}
        return {**settings, **most, "score_type": score_type_of(spec, model)}

    def values(self, result: Classification) -> dict[str, Any]:
        """See `tag_values`."""
        return tag_values(result, self.resolved, self._tagger)

    def values_of_objects(self, results: Mapping[int, Classification]) -> dict[str, Any]:
        """See `tag_values_of_objects`."""
        return tag_values_of_objects(results, self.resolved, self._tagger)

    def read(self, outputs: Any, batch: list[ModelInput]) -> list[Classification | ImageError]:
        """See `Predictor.read`."""
        logits = logits_in(outputs, len(batch), self._classes, self._head)
        scores, ids = sorted_scores(logits, self._score_type, self._folding)
        kept = torch.ones_like(scores, dtype=torch.bool)
        if self._thresholds is not None:
            kept = scores > self._thresholds.to(scores.device)[ids]
        if self._most is not None:
            kept &= kept.cumsum(dim=1) <= self._most
        values, classes, chosen = scores.cpu().numpy(), ids.int().cpu().numpy(), kept.cpu().numpy()
        return [
            Classification(i[k], s[k])
            if ok
            else self.image_error(FloatingPointError("a logit is not a number"))
            for i, s, k, ok in zip(classes, values, chosen, finite(logits), strict=True)
        ]
