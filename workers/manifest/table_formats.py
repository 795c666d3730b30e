"""Folders of table formats, which also hold files of rows that were removed: recognised and refused."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from glob import escape as _escape
from typing import Any

from schemas.exceptions import ManifestError

LOOKUPS_AT_ONCE = 16

_ADVICE = {
    "Delta": "SELECT * FROM delta_scan('{folder}')",
    "Iceberg": "SELECT * FROM iceberg_scan('{folder}')",
    "Hudi": "a SELECT of the table in Spark",
}
"""What gives the rows of a table, in DuckDB where it can."""


def assert_no_table_format(fs: Any, named: str, root: str, files: list[str]) -> None:
    """Refuses a folder or glob of a table format: its log says which of its files count, not their names.

    Args:
        fs: the file system.
        named: what the manifest named. A file that is named itself is taken as it is.
        root: the folder below which the files were looked for.
        files: the Parquet files that were found there.

    Raises:
        ManifestError: with what to do.
    """
    folders = sorted({folder for name in files if name != named for folder in _folders(name, root)})
    with ThreadPoolExecutor(LOOKUPS_AT_ONCE) as pool:
        for folder, kind in zip(folders, pool.map(lambda folder: _kind(fs, folder), folders), strict=True):
            if kind:
                raise ManifestError(
                    f"{folder} is a table of {kind}, or a part of one: it may hold files of rows that were "
                    "removed or replaced, which only its log tells apart. Write its rows to plain Parquet "
                    f"and name that as the manifest: {_advice(kind, folder)}; or name the files of its "
                    "current version one by one"
                )


def _advice(kind: str, folder: str) -> str:
    query = _ADVICE[kind].format(folder=folder)
    return f"COPY ({query}) TO 'manifest.parquet' in DuckDB" if query.startswith("SELECT") else query


def _folders(name: str, root: str) -> Iterable[str]:
    """The folders that may be a file's table: all up to the root, and two above it.

    Those are the first that is no partition of Hive's, and what `data` lies in.
    """
    folders = name.split("/")[:-1]
    depth = root.count("/") + 1
    yield from ("/".join(folders[:number]) for number in range(depth, len(folders) + 1))
    above = folders[:depth]
    while above and "=" in above[-1]:
        above.pop()
    yield "/".join(above)
    if "data" in folders:
        last = len(folders) - 1 - folders[::-1].index("data")
        yield "/".join(folders[:last])


def _kind(fs: Any, folder: str) -> str | None:
    return next((kind for kind, is_it in _KINDS.items() if is_it(fs, folder)), None)


_KINDS: dict[str, Callable[[Any, str], bool]] = {
    "Delta": lambda fs, folder: fs.exists(f"{folder}/_delta_log"),
    "Iceberg": lambda fs, folder: bool(fs.glob(f"{_escape(folder)}/metadata/*.metadata.json")),
    "Hudi": lambda fs, folder: bool(fs.glob(f"{_escape(folder)}/.hoodie*")),  # in a partition its metadata
}
