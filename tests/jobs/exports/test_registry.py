import re
from pathlib import Path

import pytest

from jobs.exports.base import PARTS
from jobs.exports.command import ExportOptions, export_run
from jobs.exports.registry import FORMATS
from tests.conftest import ROOT

MODULES = {name: name.replace("-", "_") for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_imports_no_other(name: str) -> None:
    text = (ROOT / "jobs" / "exports" / f"{MODULES[name]}.py").read_text()
    imported = set(re.findall(r"^from jobs\.exports\.(\w+) import", text, re.MULTILINE))
    assert "base" in imported
    assert not imported & set(MODULES.values())
    assert FORMATS[name].keeps <= PARTS.keys()


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.photos])
def test_every_format_that_takes_photos_has_copies_of_all(name: str, run: str, tmp_path: Path) -> None:
    done = export_run(run, name, tmp_path / "out", ExportOptions(copy_images=True))
    photos = tmp_path / "out" / str(FORMATS[name].photos)
    assert len(list(photos.iterdir())) == done.images == 8
    assert not any("EXIF" in note for note in done.notes)
