import io

import pytest
from rich.console import Console

from jobs.prepare.models import print_models
from workers.models.registry import list_models


@pytest.mark.parametrize("width", [80, 200])
def test_models_fit_a_terminal_and_none_of_what_is_known_is_cut(width: int) -> None:
    text, models = io.StringIO(), list_models()
    print_models(models, Console(file=text, width=width))
    assert max(map(len, text.getvalue().splitlines())) <= width
    words = " ".join(text.getvalue().split())
    for model in models:
        assert f"{model.name} {model.task} {model.categories} {model.source}" in words
        assert f"input {model.input_size}; {model.quality} licence: {model.licence}" in words
