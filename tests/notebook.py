"""docs/quickstart.ipynb, run from its first cell to its last: `python -m tests.notebook` records it anew."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"

TIMEOUT_S = 300
"""Seconds that a cell may take on a machine that is busy."""

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
"""Of the Python that runs this: Jupyter finds it by that name where it has no other."""


def recorded() -> Any:
    """The notebook as it is saved."""
    return nbformat.read(NOTEBOOK, as_version=4)


def executed(folder: Path) -> Any:
    """The notebook after a run in an empty folder, which then is what a clone is to it.

    Raises:
        CellExecutionError: a cell failed.
    """
    shutil.copytree(ROOT / "infra" / "demo" / "photos", folder / "infra" / "demo" / "photos")
    (folder / "docs").mkdir()
    notebook = recorded()
    resources = {"metadata": {"path": str(folder / "docs")}}
    NotebookClient(notebook, timeout=TIMEOUT_S, resources=resources, record_timing=False).execute()
    return notebook


def pictures(cells: list[Any]) -> list[str]:
    """The JPEG files among the outputs of some cells, in base64."""
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [output.data["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", {})]


def main() -> None:
    """Records the outputs of every cell."""
    with tempfile.TemporaryDirectory(prefix="rl") as folder:
        notebook = executed(Path(folder))
    notebook["metadata"] = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
