"""What all sections of a job spec have in common."""

from pydantic import BaseModel, ConfigDict

SHA256 = r"^[0-9a-f]{64}$"
"""The pattern of a file's hash."""


class Section(BaseModel):
    """A section of the spec: no unknown keys, no conversions of types, frozen.

    What a check says follows the key's path in the message that `schemas.spec_file` writes: "found …" of the
    key, or ".NAME: found …" of one below it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
