"""The versions of Ray that a version of raylabel supports."""

from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


def ray_wanted(raylabel: Distribution | None = None) -> SpecifierSet:
    """The versions of Ray that a raylabel requires; any, where its metadata names none.

    Args:
        raylabel: its metadata; None: the running version's.
    """
    needs = map(Requirement, (raylabel or distribution("raylabel")).requires or ())
    return next((need.specifier for need in needs if need.name == "ray"), SpecifierSet())
