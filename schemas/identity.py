"""Which settings decide a run's rows."""

from typing import Any

PILLOW_HEIF = "pillow-heif"
"""The library that decodes HEIC images, as a run's identity calls it."""

MAY_COME = frozenset({PILLOW_HEIF})
"""Libraries that a run may be retried with although it began without them."""


def settings_of_rows(spec: dict[str, Any]) -> dict[str, Any]:
    """The settings of a job spec that decide its rows, apart from the manifest's files and the models."""
    columns = ("uri_column", "image_column", "image_id_column", "base")
    manifest = {key: spec["manifest"].get(key) for key in columns}
    return {
        **{f"manifest.{key}": value for key, value in manifest.items()},
        "decode.max_pixels": spec["decode"]["max_pixels"],
        "fetch.max_bytes": spec["fetch"]["max_bytes"],
        "compute.precision": spec["compute"]["precision"],
        "compute.runtime": spec["compute"].get("runtime"),
        "units": spec["units"],
        "facts": spec.get("facts", []),  # runs of older versions have none
    }
