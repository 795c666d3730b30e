"""The columns of a manifest: which one has the images or names them, and which go into the labels table."""

from collections.abc import Iterable

import pyarrow as pa

from schemas.exceptions import ManifestError
from schemas.spec import ManifestSpec

NamedSchema = tuple[str, pa.Schema]
"""The URI of a source, without credentials, and its columns."""


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


def common_image_column(spec: ManifestSpec, schemas: list[NamedSchema]) -> str | None:
    """Returns the image column that all sources of a manifest have; None where all name their images.

    Raises:
        ManifestError: a source has neither, or they differ.
    """
    columns = {image_column(spec, uri, schema): uri for uri, schema in schemas if len(schema)}
    if len(columns) > 1:
        differing = (
            f"{f'images in column {name!r}' if name else 'names of images'} in {uri}"
            for name, uri in columns.items()
        )
        raise ManifestError(
            f"the manifest's files do not fit together: {', '.join(differing)}. Label them apart"
        )
    return next(iter(columns), None)


def merged_columns(schemas: list[NamedSchema], images: str | None) -> pa.Schema:
    """Returns the columns of all sources of a manifest, nullable, without those that hold images.

    Args:
        schemas: of the sources.
        images: the column with the images; None where a column names them.

    Raises:
        ManifestError: two sources have one column with types that do not fit together.
    """
    # a labels table full of pictures helps nobody: with the image column go all others like it
    without = {f.name for _, schema in schemas for f in schema if images and has_bytes(f.type)} | {images}
    plain = [_plain(schema, without) for _, schema in schemas]
    try:
        return pa.unify_schemas(plain or [pa.schema([])], promote_options="permissive")
    except pa.ArrowException as error:
        raise ManifestError(f"the manifest's files do not fit together: {error}") from None


def id_column(spec: ManifestSpec, columns: pa.Schema) -> str | None:
    """Returns the column with the user's own id of an image; None where there is none.

    Raises:
        ManifestError: the spec names a column that the manifest does not have.
    """
    name = spec.image_id_column or ("image_id" if "image_id" in columns.names else None)
    if name and name not in columns.names:
        raise ManifestError(
            f"manifest.image_id_column is {name!r}; the manifest has: {', '.join(columns.names) or 'none'}"
        )
    return name


def assert_text(uri_column: str, columns: pa.Schema) -> None:
    """Refuses a column of URIs that is not text.

    Raises:
        ManifestError: with its type.
    """
    if uri_column not in columns.names:
        return
    kind = columns.field(uri_column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ManifestError(f"column {uri_column!r} of the manifest is {kind}, allowed: string")


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


def _plain(schema: pa.Schema, without: set[str | None]) -> pa.Schema:
    """The same columns, nullable, dictionaries as their values: files of one manifest may differ in these."""
    fields = [f for f in schema if f.name not in without]
    kinds = [f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in fields]
    return pa.schema([pa.field(f.name, kind) for f, kind in zip(fields, kinds, strict=True)])
