"""The classifier: says what an image shows, overall."""

from typing import Any

from schemas.exceptions import ImageError
from schemas.images import Classification
from schemas.tasks import CLASSIFY, ClassifierSpec
from workers.models.folding import folding_of
from workers.models.model import ClassifierModel, LoadedModel
from workers.models.predictor import ModelInput, Predictor
from workers.models.scores import adds_up, finite, head_of, logits_in, score_type_of, top_k
from workers.tables.results import label_values


class Classifier(Predictor[Classification]):
    """A classifier; see `Predictor`."""

    task = CLASSIFY

    def __init__(self, name: str, loaded: LoadedModel[ClassifierModel, ClassifierSpec]) -> None:
        super().__init__(name, loaded)
        self._classes = len(loaded.model.categories)
        self._head = head_of(loaded.model)
        self._top_k = loaded.spec.top_k
        self._folding = folding_of(loaded.model.names, add_up=adds_up(loaded.spec, loaded.model))
        self._score_type = score_type_of(loaded.spec, loaded.model)

    @staticmethod
    def apply(spec: ClassifierSpec, model: ClassifierModel) -> dict[str, object]:
        """See `Predictor.apply`."""
        return {"top_k": spec.top_k, "score_type": score_type_of(spec, model)}

    def values(self, result: Classification) -> dict[str, Any]:
        """See `label_values`."""
        return label_values(result, self.resolved)

    def read(self, outputs: Any, batch: list[ModelInput]) -> list[Classification | ImageError]:
        """See `Predictor.read`."""
        logits = logits_in(outputs, len(batch), self._classes, self._head)
        label_ids, scores = top_k(logits, self._top_k, self._score_type, self._folding)
        ids, values = label_ids.int().cpu().numpy(), scores.cpu().numpy()
        return [
            Classification(i, s) if ok else self.image_error(FloatingPointError("a logit is not a number"))
            for i, s, ok in zip(ids, values, finite(logits), strict=True)
        ]
