"""The command `raylabel` in any folder: modules of the user's hide neither Python's own nor raylabel's.

A folder on PYTHONPATH comes before both on the module path, in this process and in those that it starts.
Until that is put right, nothing is imported but what Python has loaded already.
"""

import os
import sys

PACKAGES = ("jobs", "schemas", "workers")
"""raylabel's own, beside the package that this module is in."""

OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder that raylabel's packages are in."""

LAST = "RAYLABEL_LAST_ON_PATH"
"""The variable with folders taken out of PYTHONPATH; processes that load models search them last."""


def main(parent: int | None = None) -> None:
    """Runs the command.

    Args:
        parent: the process that started it, and without which it stops as by SIGTERM; None: it goes on.
    """
    leave_on_signals()
    put_last(hiding_folders())
    if parent is not None:
        from workers.process.family import stop_without

        stop_without(parent)
    from jobs.cli.app import main as command

    command()


def leave_on_signals() -> None:
    """Until `jobs.run.stop` is imported, a signal that stops ends this process with a sentence."""
    import _signal as signal  # type: ignore[import-not-found]  # built in: no folder hides it

    names = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}

    def on_signal(number: int, _: object) -> None:
        name = names[number]
        os.write(2, f"raylabel: stopped by {name} while starting; the same command begins again\n".encode())
        os._exit(128 + number)

    for number in names:
        if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP:  # nohup's
            signal.signal(number, on_signal)


def hiding_folders() -> list[str]:
    """The folders before the standard library on the module path that hide modules of it, or of raylabel."""
    library = sys.path.index(os.path.dirname(os.__file__))
    return [folder for folder in sys.path[:library] if _hides(folder)]


def put_last(folders: list[str]) -> None:
    """Moves folders to the end of the module path; takes them out of PYTHONPATH, for processes to come."""
    sys.path[:] = [folder for folder in sys.path if folder not in folders] + folders
    if variable := os.environ.get("PYTHONPATH"):
        named = [os.path.abspath(folder) for folder in variable.split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(folder for folder in named if folder not in folders)
        os.environ[LAST] = os.pathsep.join(folder for folder in named if folder in folders)


def _hides(folder: str) -> bool:
    """Whether a folder has a module or a package of a name that is Python's or raylabel's."""
    if folder == OWN_FOLDER or folder.endswith("-packages"):
        return False  # installed packages may bring a newer form of a module
    try:
        names = {entry.name.partition(".")[0] for entry in os.scandir(folder) if _is_module(entry)}
    except OSError:
        return False
    return not names.isdisjoint(sys.stdlib_module_names.union(PACKAGES))


def _is_module(entry: "os.DirEntry[str]") -> bool:
    return entry.name.endswith((".py", ".pyc", ".so")) or os.path.isfile(f"{entry.path}/__init__.py")
