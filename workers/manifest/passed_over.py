"""What a folder or glob holds besides the files of a manifest: counted by ending, for a person."""

from collections import Counter

from schemas.words import counted
from workers.manifest.suffixes import suffix_of
from workers.printable import short_line

MAX_KINDS, SHOWN_KINDS = 1000, 5
LONGEST_ENDING = 12

HIDDEN = "hidden (their names begin with . or _)"
SPECIAL = "no regular files"
NOWHERE = "links that lead nowhere, or to a folder that is read already"
OTHER = "with other endings"


class PassedOver:
    """Counts what is passed over, in little memory however much it is."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._rows = ""

    def add_rows(self, count: int, example: str) -> None:
        """Counts rows of metadata that name no image that is there, of which one names the example."""
        such = f" (such as {short_line(example)})" if example else ""
        self._rows = f"{counted(count, 'row')} of metadata naming no image{such}"

    def add(self, kind: str) -> None:
        """Counts one of a kind: one of those above, or an ending."""
        known = kind in self._counts or len(self._counts) < MAX_KINDS
        self._counts[kind if known else OTHER] += 1

    def add_file(self, name: str) -> None:
        """Counts a file by the ending of its name."""
        ending = suffix_of(name)
        is_short = len(ending) <= LONGEST_ENDING and ending.isprintable()
        self.add((ending or "without an ending") if is_short else OTHER)

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self._counts or self._rows)

    def __str__(self) -> str:
        """Such as "2 .heic, 1 without an ending"."""
        kinds = sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))
        shown = [f"{count:,} {kind}" for kind, count in kinds[:SHOWN_KINDS]]
        rest = sum(count for _, count in kinds[SHOWN_KINDS:])
        return ", ".join(filter(None, [*shown, f"{rest:,} others" if rest else "", self._rows]))
