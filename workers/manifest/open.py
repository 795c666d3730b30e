"""From the sources of a manifest to its rows, which can then be read by position."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from schemas.exceptions import ManifestError
from schemas.ledger import manifest_folder
from schemas.spec import ManifestSpec
from workers.manifest.columns import (
    SourceColumns,
    assert_text,
    carried_type,
    common_image_column,
    id_column,
    id_type,
    plain_columns,
    strings,
)
from workers.manifest.convert import convert, is_converted, kept_conversions
from workers.manifest.exact import assert_whole_microseconds, reason_not_exact
from workers.manifest.files import ManifestFile
from workers.manifest.formats import FORMATS
from workers.manifest.formats.jsonl import JsonLines
from workers.manifest.formats.parquet import Parquet
from workers.manifest.manifest import Manifest
from workers.manifest.sources import Source
from workers.storage.store import Store
from workers.storage.uris import clean_uri

FOOTERS_AT_ONCE = 16
"""Parquet files whose footers are read at once."""

MapTasks = Callable[[Callable[..., Any], list[tuple[Any, ...]]], list[Any]]
"""Runs one function over many argument lists, somewhere, and gives the results in order."""


def map_here(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Calls a function with each list of arguments in this process: a `MapTasks`."""
    return [function(*call) for call in arguments]


def open_manifest(
    spec: ManifestSpec, sources: list[Source], store: Store, map_tasks: MapTasks, retry: int = 0
) -> Manifest:
    """Returns a manifest whose rows can be read by position.

    What is not Parquet is converted to it in the run directory, once a pass: what an earlier attempt recorded
    is taken as it is.

    Args:
        spec: which columns it has.
        sources: of `find_sources`.
        store: the run directory.
        map_tasks: where sources are converted.
        retry: the pass that it is opened for; 0 is the first.

    Raises:
        ManifestError: it has no rows, or not the columns the spec names, or a file is malformed.
    """
    folder = store.below(manifest_folder(retry))
    files = kept_conversions(folder, sources)
    files |= _convert_others(folder, sources, files, map_tasks)
    opened = {number: (some, _string_columns(some)) for number, some in files.items()}
    opened |= _read_footers(sources)
    return _manifest(spec, [(source, *opened[number]) for number, source in enumerate(sources)])


def no_rows(spec: ManifestSpec) -> ManifestError:
    """The error of a manifest without rows, such as a CSV file that is only a header."""
    return ManifestError(f"the manifest {', '.join(map(clean_uri, spec.uris))} has no rows")


def _convert_others(
    folder: Store, sources: list[Source], done: dict[int, list[ManifestFile]], map_tasks: MapTasks
) -> dict[int, list[ManifestFile]]:
    """Converts the sources that are still to be: files in tasks; listings here, as they are on this disk."""
    todo = [(n, source) for n, source in enumerate(sources) if is_converted(source) and n not in done]
    named = {n: (folder, source) for n, source in todo if source.listing is None}
    files = dict(zip(named, map_tasks(convert, list(named.values())), strict=True))
    return files | {n: convert(folder, source) for n, source in todo if source.listing is not None}


def _string_columns(files: list[ManifestFile]) -> pa.Schema:
    """The columns of a source that was converted: those of all its files."""
    return strings(name for file in files for name in file.columns)


def _read_footers(sources: list[Source]) -> dict[int, tuple[list[ManifestFile], pa.Schema]]:
    """The sources that are Parquet themselves, by their numbers, each as one file, and their columns."""
    parquet = {
        n: fmt for n, source in enumerate(sources) if isinstance(fmt := FORMATS[source.format], Parquet)
    }
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        footers = list(pool.map(lambda n: parquet[n].footer(sources[n]), parquet))
        list(pool.map(assert_whole_microseconds, [file.uri for file, _ in footers]))
    return {n: ([file], schema) for n, (file, schema) in zip(parquet, footers, strict=True)}


def _manifest(spec: ManifestSpec, opened: list[tuple[Source, list[ManifestFile], pa.Schema]]) -> Manifest:
    """One manifest of all sources, whose columns must fit together."""
    files = [file for _, some, _ in opened for file in some]
    if not sum(file.rows for file in files):
        raise no_rows(spec)
    return Manifest(files, spec.uri_column, **_common_columns(spec, opened))


def assert_common_columns(spec: ManifestSpec, sources: list[Source]) -> None:
    """Refuses files that are no manifest together, before any is labelled or converted.

    Where there are JSON Lines, whose columns are known when all rows are, that is when they are converted.
    Where there is no Parquet, all columns are text.

    Raises:
        ManifestError: see `open_manifest`.
    """
    kinds = [type(FORMATS[source.format]) for source in sources]
    if Parquet in kinds and JsonLines not in kinds:
        opened: dict[int, tuple[list[ManifestFile], pa.Schema]]
        opened = {n: ([], FORMATS[s.format].columns(s)) for n, s in enumerate(sources) if is_converted(s)}
        opened |= _read_footers(sources)
        _common_columns(spec, [(source, *opened[number]) for number, source in enumerate(sources)])


def _common_columns(
    spec: ManifestSpec, opened: list[tuple[Source, list[ManifestFile], pa.Schema]]
) -> dict[str, Any]:
    """The columns of a manifest, as arguments of `Manifest`."""
    own = [_columns(*each) for each in opened if not FORMATS[each[0].format].has_own_columns]
    others = [
        _columns(source, files, pa.schema([]))
        for source, files, _ in opened
        if FORMATS[source.format].has_own_columns
    ]
    images = common_image_column(spec, own)
    sources = own + others
    names = plain_columns(sources, images)
    image_id = id_column(spec, names)
    if images is None:
        assert_text(spec.uri_column, sources)
    used = (image_id, None if images else spec.uri_column)
    return {
        "image_column": images,
        "image_id_column": image_id,
        "image_id_type": id_type(image_id, sources) if image_id else pa.string(),
        "carried": pa.schema([(name, carried_type(name, sources)) for name in names if name not in used]),
    }


def _columns(source: Source, files: list[ManifestFile], schema: pa.Schema) -> SourceColumns:
    """The columns of a source, those that its folders say among them."""
    further = [name for name, _ in source.partitions if name not in schema.names]
    fields = [*schema, *(pa.field(name, pa.string()) for name in further)]
    return SourceColumns(
        source.file.uri,
        pa.schema(fields),
        lambda name, kind, convert: next(
            (why for file in files if (why := reason_not_exact(file.uri, name, kind, convert))), None
        ),
    )
