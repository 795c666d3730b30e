"""`raylabel models`: the models that a job can use."""

import json

from rich.console import Console
from rich.table import Table


def list_models(text: str, *, timm: bool, as_json: bool) -> None:
    """Prints the models that a job can use whose name contains a text, in any case."""
    from workers.models.registry import list_models as known_models

    models = [model for model in known_models(timm=timm) if text.lower() in model.name.lower()]
    if as_json:
        print(json.dumps([model.model_dump() for model in models]))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "task", "source", "input", "classes", "quality", "licence"):
        table.add_column(heading, no_wrap=heading in ("model", "task", "source"), overflow="fold")
    for model in models:
        classes = str(model.categories)
        row = (model.name, model.task, model.source, model.input_size, classes, model.quality, model.licence)
        table.add_row(*row)
    Console(highlight=False).print(table)
