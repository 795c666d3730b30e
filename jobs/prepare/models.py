"""`raylabel models`: the models that a job can use."""

import json
import textwrap

from rich.console import Console
from rich.text import Text

from schemas.models import ModelInfo
from workers.printable import printable


def list_models(text: str, *, timm: bool, as_json: bool) -> None:
    """Prints the models that a job can use whose name contains a text, in any case."""
    from workers.models.registry import list_models as known_models

    models = [model for model in known_models(timm=timm) if text.lower() in model.name.lower()]
    if as_json:
        print(json.dumps([model.model_dump() for model in models]))
    elif models:
        print_models(models, Console(highlight=False))
    else:
        print(f"found no model with {text!r} in its name" + ("" if timm else "; --timm lists timm's as well"))


def describe_model(model: str, *, as_json: bool) -> bool:
    """Prints what a `model` of a job spec is taken for, and why, with the lines to write.

    Returns:
        Whether a job can use it.
    """
    from workers.models.registry import explain

    explanation = explain(model)
    if as_json:
        print(explanation.model_dump_json())
        return bool(explanation.spec)
    console = Console(highlight=False)
    facts = {"model": explanation.model, "task": explanation.task, "source": explanation.source}
    for name, fact in (facts | explanation.facts).items():
        console.print(Text(f"{name + ':':15} ", "bold").append(printable(fact), "not bold"), soft_wrap=True)
    if explanation.spec:
        console.print(Text("\nin the job spec:", "bold"))
        print(printable(textwrap.indent(explanation.spec, _INDENT)), end="")
    return bool(explanation.spec)


def print_models(models: list[ModelInfo], console: Console) -> None:
    """Prints models: what fits a line of any terminal in columns, the rest wrapped below it."""
    width = max(len(model.name) for model in models)
    console.print(Text(f"{'model':{width}}  {'task':10}  classes  source", "bold"), soft_wrap=True)
    for model in models:
        line = f"{model.name:{width}}  {model.task:10}  {model.categories:7}  {model.source}"
        console.print(Text(line), soft_wrap=True)
        for detail in (f"input {model.input_size}; {model.quality}", f"licence: {model.licence}"):
            lines = textwrap.fill(detail, console.width, initial_indent=_INDENT, subsequent_indent=_INDENT)
            console.print(Text(lines, "dim"), soft_wrap=True)


_INDENT = "    "
