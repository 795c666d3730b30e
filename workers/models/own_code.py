"""The user's own modules that a model is made by, and the libraries that they use."""

import ast
import contextlib
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType

_RAYLABEL = ("schemas", "workers", "jobs")
"""Packages of raylabel's, whose code is a part of the run's identity: see `jobs.prepare.code`."""

_LIBRARIES = {"site-packages", "dist-packages"}
"""Folders that installed libraries are in, which their versions pin."""


def own_files(module: ModuleType, imported: Iterable[str]) -> dict[str, Path]:
    """The file of a user's module and those of the user's modules that it imports, directly or not, by name.

    Args:
        module: the module that holds the factory.
        imported: names of modules that were imported while it built, perhaps in ways that no source shows.
    """
    package = module.__name__.partition(".")[0]
    files: dict[str, Path] = {}
    looked_at = set[str]()
    # with their packages, which may have been imported before by somebody else
    names = [name for start in (*imported, module.__name__) for name in _with_packages(start)]
    while names:
        name = names.pop()
        if name in looked_at:
            continue
        looked_at.add(name)
        file = _file_of(name, files)
        if file and _is_own(name, file, package):
            files[name] = file
            names += _imports(name, file)
    return dict(sorted(files.items()))


def libraries_of(modules: Collection[str]) -> dict[str, str]:
    """The installed libraries that the user's modules hold parts of, with their versions; without torch."""
    loaded = (sys.modules[name] for name in modules if name in sys.modules)
    names = {_top_level(value) for module in loaded for value in vars(module).values()}
    names -= {*_RAYLABEL, "torch", "", *(name.partition(".")[0] for name in modules)}
    versions = {
        name: getattr(sys.modules.get(name), "__version__", None)
        for name in sorted(names - sys.stdlib_module_names)
    }
    return {name: str(version).partition("+")[0] for name, version in versions.items() if version}


def _file_of(name: str, known: dict[str, Path]) -> Path | None:
    """The file of a module, which need not be imported yet; None if it has none, or is part of a library.

    Args:
        name: of the module.
        known: files of the modules that are the user's.
    """
    if module := sys.modules.get(name):
        origin = getattr(module, "__file__", None)
    else:
        spec = _spec_of(name, known)
        origin = spec.origin if spec and spec.has_location else None
    file = Path(origin) if origin else None
    return file if file and file.is_file() else None


def _spec_of(name: str, known: dict[str, Path]) -> ModuleSpec | None:
    """Where a module would be imported from; nothing is imported, unlike by `find_spec("package.module")`."""
    parent = name.rpartition(".")[0]
    if not parent:
        with contextlib.suppress(ImportError, ValueError):
            return find_spec(name)
        return None
    folders = getattr(sys.modules.get(parent), "__path__", [])
    if parent in known:
        folders = [str(known[parent].parent)]
    return PathFinder.find_spec(name, list(folders))


def _is_own(name: str, file: Path, package: str) -> bool:
    """Whether a module is the user's: in the factory's package, or in no folder of libraries."""
    top = name.partition(".")[0]
    standard = file.is_relative_to(sysconfig.get_path("stdlib"))
    return top not in _RAYLABEL and (top == package or not (standard or _LIBRARIES.intersection(file.parts)))


def _imports(name: str, file: Path) -> Iterator[str]:
    """Names of the modules that a module's source imports anywhere in it, after those of their packages."""
    if file.suffix != ".py":
        return
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(_parsed(file)):
        for imported in _imported_names(node, package):
            yield from _with_packages(imported)


def _parsed(file: Path) -> ast.AST:
    """A module's source; nothing of what this Python cannot read, which the module may import in a `try`."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        return ast.parse(file.read_bytes())
    return ast.Module([], [])


def _with_packages(name: str) -> list[str]:
    """A module's name, then those of the packages that it is in, outermost last."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _imported_names(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        dots = "." * node.level
        with contextlib.suppress(ImportError):  # beyond the outermost package: it never works
            origin = resolve_name(f"{dots}{node.module or ''}", package) if dots else str(node.module)
            return [*(f"{origin}.{alias.name}" for alias in node.names), origin]
    return []


def _top_level(value: object) -> str:
    """The top-level package that a module's attribute is, or comes from; "" if it does not say."""
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0]
    named = isinstance(value, type | FunctionType | BuiltinFunctionType)
    return str(value.__module__ or "").partition(".")[0] if named else ""
