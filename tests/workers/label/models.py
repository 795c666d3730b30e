"""The part of a labelling process's settings that says which models it has."""

from typing import Any

import pyarrow as pa

from schemas.models import tables_of
from schemas.tasks import ModelSpec
from workers.models.registry import load

NO_COLUMNS = pa.schema([])


def settings_of_models(*specs: ModelSpec | None, carried: pa.Schema = NO_COLUMNS) -> dict[str, Any]:
    """The models, their fingerprints and the tables; None for one that is left out."""
    models = {spec.task.name: spec for spec in specs if spec}
    resolved = {name: load(spec).resolved for name, spec in models.items()}
    fingerprints = tuple(model.fingerprint for model in resolved.values())
    return {"models": models, "fingerprints": fingerprints, "tables": tables_of(resolved, carried)}
