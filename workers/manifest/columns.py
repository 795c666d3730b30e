"""The columns of a manifest: which one has the images or names them, and which go into the labels table."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from schemas.exceptions import ManifestError
from schemas.spec import ManifestSpec
from workers.manifest.types import (
    Convert,
    as_ids,
    as_type,
    exact_id_types,
    exact_types,
    fields_alike,
    has_text,
    is_lossless,
    is_text,
    plain_type,
)

SHOWN_TYPES = 4
"""Types of a column that a message tells."""

SCANS_AT_ONCE = 8
"""Files whose values are looked at at once."""


@dataclass(frozen=True, slots=True)
class SourceColumns:
    """The columns of a source.

    Attributes:
        uri: of the source, without credentials.
        schema: its columns, those of its files.
        reason_not_exact: for a column, a type and what gives values that type, why the type does not hold
            every value of the column; None where it does. It reads the column.
    """

    uri: str
    schema: pa.Schema
    reason_not_exact: Callable[[str, pa.DataType, Convert], str | None]

    def kind(self, name: str) -> pa.DataType | None:
        """The type of a column; None where there is no such column."""
        return self.schema.field(name).type if name in self.schema.names else None


def strings(names: Iterable[str]) -> pa.Schema:
    """A schema of string columns; a name that comes again is left out."""
    return pa.schema([pa.field(name, pa.string()) for name in dict.fromkeys(names)])


def image_column(spec: ManifestSpec, uri: str, columns: pa.Schema) -> str | None:
    """Returns the column of a source that holds the images themselves; None where a column names them.

    Args:
        spec: which may name either column.
        uri: of the source, without credentials.
        columns: of the source.

    Raises:
        ManifestError: there is neither. It names the columns that there are.
    """
    candidates: list[str] = [f.name for f in columns if _holds_bytes(f.type)]
    if spec.image_column != "auto":
        if spec.image_column in candidates:
            return spec.image_column
        raise ManifestError(
            f"manifest.image_column is {spec.image_column!r}; the columns of {uri} that can hold "
            f"images (binary, or structs with binary `bytes`) are: {', '.join(candidates) or 'none'}"
        )
    if spec.uri_column in columns.names:
        return None
    if len(candidates) == 1:
        return candidates[0]
    raise ManifestError(
        f"{uri} has no column {spec.uri_column!r} to find the images by; "
        f"it has: {', '.join(columns.names) or 'none'}. Set manifest.uri_column to one of them"
        + (
            f", or manifest.image_column to one that holds the images: {', '.join(candidates)}"
            if candidates
            else ""
        )
    )


def common_image_column(spec: ManifestSpec, sources: list[SourceColumns]) -> str | None:
    """Returns the image column that all sources of a manifest have; None where all name their images.

    Raises:
        ManifestError: a source has neither, or they differ.
    """
    columns = {image_column(spec, s.uri, s.schema): s.uri for s in sources if len(s.schema)}
    if len(columns) > 1:
        differing = (
            f"{f'images in column {name!r}' if name else 'names of images'} in {uri}"
            for name, uri in columns.items()
        )
        raise ManifestError(
            f"the manifest's files do not fit together: {', '.join(differing)}. Label them apart"
        )
    return next(iter(columns), None)


def plain_columns(sources: list[SourceColumns], images: str | None) -> list[str]:
    """Returns the names of the columns of all sources of a manifest, without those that hold images.

    Args:
        sources: all of them.
        images: the column with the images; None where a column names them.
    """
    fields = [field for source in sources for field in source.schema]
    # a labels table full of pictures helps nobody: with the image column go all others like it
    without = {field.name for field in fields if images and has_bytes(field.type)} | {images}
    return list(dict.fromkeys(field.name for field in fields if field.name not in without))


def id_column(spec: ManifestSpec, names: list[str]) -> str | None:
    """Returns the column with the user's own id of an image; None where there is none.

    Raises:
        ManifestError: the spec names a column that the manifest does not have.
    """
    name = spec.image_id_column or ("image_id" if "image_id" in names else None)
    if name and name not in names:
        raise ManifestError(f"manifest.image_id_column is {name!r}; the manifest has: {_names(names)}")
    return name


def carried_type(name: str, sources: list[SourceColumns]) -> pa.DataType:
    """Returns the type that a column is carried as: one that holds every value of every source exactly.

    Raises:
        ManifestError: there is none. It names the column and two sources.
    """
    kinds = _kinds(name, sources)
    kind = _first_exact(name, sources, exact_types(list(kinds)), kinds)
    if alike := fields_alike(kind):
        raise ManifestError(
            f"column {name!r} of the manifest has fields that differ only in case: "
            f"{' and '.join(map(repr, alike))}. Spark and DuckDB cannot read such a table. Rename one of them"
        )
    return kind


def id_type(name: str, sources: list[SourceColumns]) -> pa.DataType:
    """Returns the type of which the ids of every source are, before they become text.

    Raises:
        ManifestError: there is none, or its values have no text.
    """
    kinds = _kinds(name, sources)
    for kind, uri in kinds.items():
        if not has_text(plain_type(kind)):
            raise ManifestError(
                f"column {name!r} of {uri} is {kind}, which has no text to be an image's id. Write it as "
                "text, or name another column with manifest.image_id_column"
            )
    return _first_exact(name, sources, exact_id_types(list(kinds)), kinds, as_ids)


def assert_text(name: str, sources: list[SourceColumns]) -> None:
    """Refuses a column of URIs that is not text.

    Raises:
        ManifestError: with its type, and the source that has it.
    """
    kinds = _kinds(name, sources)
    has_some = any(not pt.is_null(kind) for kind in kinds)
    for kind, uri in kinds.items():
        if not is_text(kind) and not (pt.is_null(kind) and has_some):
            raise ManifestError(f"column {name!r} of {uri} is {kind}; allowed: string")


def _kinds(name: str, sources: list[SourceColumns]) -> dict[pa.DataType, str]:
    """The types of a column, with the first source that has each."""
    kinds: dict[pa.DataType, str] = {}
    for source in sources:
        if (kind := source.kind(name)) is not None:
            kinds.setdefault(kind, source.uri)
    return kinds


def _first_exact(
    name: str,
    sources: list[SourceColumns],
    choices: list[pa.DataType],
    kinds: dict[pa.DataType, str],
    convert: Convert = as_type,
) -> pa.DataType:
    reasons = []
    for choice in choices:
        reason = _reason_not_exact(name, sources, choice, convert)
        if reason is None:
            return choice
        reasons.append(f"; as {choice}: {reason}")
    there = ", ".join(f"{kind} in {uri}" for kind, uri in list(kinds.items())[:SHOWN_TYPES])
    raise ManifestError(
        f"column {name!r} of the manifest is {there}, and no type holds every value exactly"
        f"{''.join(reasons)}. Write it with one type, leave it out, or label the files apart"
    )


def _reason_not_exact(
    name: str, sources: list[SourceColumns], kind: pa.DataType, convert: Convert
) -> str | None:
    """Why a type does not hold every value of a column; sources are read where their type does not say."""
    unsure = [source for source in sources if not _is_sure(source.kind(name), kind)]
    with ThreadPoolExecutor(SCANS_AT_ONCE) as pool:
        for source, reason in zip(
            unsure, pool.map(lambda source: source.reason_not_exact(name, kind, convert), unsure), strict=True
        ):
            if reason:
                pool.shutdown(cancel_futures=True)
                return f"{source.uri}: {reason}"
    return None


def _is_sure(kind: pa.DataType | None, into: pa.DataType) -> bool:
    return kind is None or is_lossless(kind, into)


def _names(names: list[str]) -> str:
    return ", ".join(names) or "none"


def column_names(schema: pa.Schema) -> tuple[str, ...]:
    """The names of a file's columns, then the paths of the `path` fields of its image structs."""
    paths = [f"{f.name}.path" for f in schema if has_bytes(f.type) and f.type.get_field_index("path") >= 0]
    return (*schema.names, *paths)


def has_bytes(kind: pa.DataType) -> bool:
    """Whether a type is a struct with binary `bytes`, as Hugging Face's datasets store an image."""
    if not pa.types.is_struct(kind):
        return False
    index = kind.get_field_index("bytes")
    return index >= 0 and _is_binary(kind.field(index).type)


def _holds_bytes(kind: pa.DataType) -> bool:
    return _is_binary(kind) or has_bytes(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
