"""The error of an image that cannot be decoded."""

from schemas.errors import MESSAGE_LIMIT, ErrorCode, Stage
from schemas.exceptions import ImageError


def decode_error(code: ErrorCode, message: str) -> ImageError:
    """An ImageError of stage DECODE; a long message is cut."""
    return ImageError(Stage.DECODE, code, message[:MESSAGE_LIMIT])


def ends_early(name: str, where: str) -> ImageError:
    """The error of a file of some format whose bytes end before the picture does."""
    return decode_error(ErrorCode.TRUNCATED, f"The {name} file ends early: {where}.")


def too_many(name: str, count: str, most: int) -> ImageError:
    """The error of a file that would take long to read and that no camera or program writes.

    Args:
        name: of the format.
        count: what there is too much of, with its number.
        most: that is allowed.
    """
    message = f"This {name} file has {count}; allowed: {most:,}. Save it again with an image program."
    return decode_error(ErrorCode.UNSUPPORTED, message)
