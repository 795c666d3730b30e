"""What all sections of a job spec have in common."""

from typing import Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from schemas.words import value_text

ONE_OR_MORE = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
"""Lets a text stand for a list of it alone."""

SHA256 = r"^[0-9a-f]{64}$"
"""The pattern of a file's hash."""


class Section(BaseModel):
    """A section of the spec: no unknown keys, no conversions of types, frozen.

    What a check says follows the key's path in the message that `schemas.spec_file` writes: "found …" of the
    key, or ".NAME: found …" of one below it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def allowed(text: str) -> WrapValidator:
    """Says in one sentence what is allowed, where pydantic says it for each type that a value may have."""

    def checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError:
            raise ValueError(f"found {value_text(value)}; allowed: {text}") from None

    return WrapValidator(checked)
