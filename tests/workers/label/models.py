"""The part of a labelling process's settings that says which models it has."""

from typing import Any

from schemas.spec import ModelSpec
from workers.models.registry import load


def settings_of_models(*specs: ModelSpec | None) -> dict[str, Any]:
    """The models and their fingerprints; None for one that is left out."""
    models = {spec.task.name: spec for spec in specs if spec}
    fingerprints = tuple(load(spec).resolved.fingerprint for spec in models.values())
    return {"models": models, "fingerprints": fingerprints}
