"""Disks without hard links, and without a rename that refuses."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from schemas.exceptions import StorageError
from tests.conftest import ROOT
from workers.storage.naming import names_once
from workers.storage.store import UNCONDITIONAL, Store

NO_LINKS = """
#include <errno.h>
int link(const char *from, const char *to) { errno = EPERM; return -1; }
"""
NO_RENAME = """
int renameat2(int a, const char *b, int c, const char *d, unsigned e) { errno = EINVAL; return -1; }
"""

WRITE = """
import sys
from workers.storage.store import Store
store = Store(sys.argv[1])
store.conditional = store.creates_once()
creates = store.create("a", b"1"), store.create("a", b"2")
print(store.conditional, *creates, store.read("a"), store.try_to_write())
"""


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has no hard links, as this process sees it."""

    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_a_file_is_still_created_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    assert store.creates_once()
    assert [store.create("a", b"1"), store.create("a", b"2"), store.read("a")] == [True, False, b"1"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a"]


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_one_of_many_creates_at_once_wins(tmp_path: Path) -> None:
    store, made = Store(str(tmp_path)), []
    threads = [
        threading.Thread(target=lambda n=n: made.append((store.create("a", b"%d" % n), n))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [b"%d" % number for won, number in made if won] == [store.read("a")]


def on_a_poor_disk(tmp_path: Path, source: str) -> str:
    """What `WRITE` prints where some of the C library's functions fail."""
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    (tmp_path / "poor.c").write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "poor.so", tmp_path / "poor.c"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(tmp_path / "poor.so")},
    )
    return done.stdout


def test_a_disk_that_can_neither_link_nor_refuse_to_rename_is_said_not_to_keep_writers_apart(
    tmp_path: Path,
) -> None:
    assert on_a_poor_disk(tmp_path, NO_LINKS) == "True True False b'1' True\n"
    shutil.rmtree(tmp_path / "out")
    assert on_a_poor_disk(tmp_path, NO_LINKS + NO_RENAME) == "False True False b'1' False\n"
    assert "neither hard links nor a rename that refuses" in UNCONDITIONAL


def test_a_trial_leaves_nothing(tmp_path: Path) -> None:
    assert names_once(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("of", "what"), [("creates_once", "/proc/raylabel/_work/tmp.*"), ("try_to_write", "to /proc/raylabel/")]
)
def test_a_folder_that_cannot_be_written_is_named_by_a_trial(of: str, what: str) -> None:
    with pytest.raises(StorageError, match=rf"cannot write {what}: .*No such file"):
        getattr(Store("/proc/raylabel"), of)()
