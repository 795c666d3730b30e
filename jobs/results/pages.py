"""Templates of the pages that raylabel makes: the report's, and those of searches."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from workers.printable import one_line


def page_environment(package: str) -> Environment:
    """Templates of a package, which escape every value, and show in one line what would turn or break it."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def _shown(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value
