"""Numbers and commands in sentences."""

import shlex
from collections.abc import Mapping


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 image", "1,204 manifest rows".

    Args:
        number: how many.
        noun: for one of them.
        plural: for any other number; empty: the noun with an "s".
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def with_article(noun: str) -> str:
    """A noun with "a" or "an", by how it begins."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def value_text(value: object) -> str:
    """A value in a sentence as YAML has it, text in quotes: 'a', true, null, [1, 2], {a: 1}."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return repr(value)
        case dict():
            return f"{{{', '.join(f'{key}: {value_text(inner)}' for key, inner in value.items())}}}"
        case list() | tuple():
            return f"[{', '.join(map(value_text, value))}]"
        case _:
            return str(value)


def raylabel_command(name: str, *arguments: str) -> str:
    """A command of raylabel in a sentence, quoted as a shell wants it: `raylabel run '/my runs/x'`."""
    return f"`{shlex.join(['raylabel', name, *arguments])}`"


def by_code(failed: Mapping[str, int]) -> str:
    """Failed images by error code, the most frequent first: "12 TIMEOUT, 1 NOT_FOUND"."""
    ranked = sorted(failed.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {code}" for code, number in ranked)
