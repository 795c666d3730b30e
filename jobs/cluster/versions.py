"""Which Ray goes with a raylabel."""

from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


def ray_wanted(raylabel: Distribution | None = None) -> SpecifierSet:
    """The versions of Ray that a raylabel is for; any, where it names none.

    Args:
        raylabel: its metadata; None: of the one that runs here.
    """
    needs = map(Requirement, (raylabel or distribution("raylabel")).requires or ())
    return next((need.specifier for need in needs if need.name == "ray"), SpecifierSet())
