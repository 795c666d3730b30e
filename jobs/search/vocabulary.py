"""What a query can be about: the classes, labels and tags of a run's models, and columns of its images."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from jobs.search.language import ATTRIBUTES, Name, quoted
from schemas.errors import ErrorCode
from workers.printable import one_line

TermKind: TypeAlias = Literal["class", "label", "tag"]

ERROR = "error"
"""The column with the code of a failed image; null of a labelled one."""

COLUMN = "column"
"""Before a colon: what follows is a column, and no class of that name."""

SHORT = {"row": "manifest_index", "objects": "object_count"}
"""Short names of columns, in queries and where values are shown; what a run has of that name goes before."""

KINDS = ("class", "label", "tagger", COLUMN, ERROR)
"""What may stand before a colon beside the name of a column."""

MOST_NAMED = 8
"""Names that a message has, at most."""


@dataclass(frozen=True, slots=True)
class Term:
    """A class, label or tag that images are found by.

    Attributes:
        id: in the index.
        kind: whose it is: the detector's, the classifier's, or a tagger's.
        tagger: the tagger's name in the job spec; "" of the others.
        name: as the model has it.
        images: that have it in the index.
    """

    id: int
    kind: TermKind
    tagger: str
    name: str
    images: int = 0

    @property
    def query(self) -> str:
        """It in a query, told apart from others of its name."""
        kind = f"tagger.{self.tagger}" if self.kind == "tag" else self.kind
        return f"{kind}:{quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of images.

    Attributes:
        name: of it, as in the labels table.
        type: DuckDB's: VARCHAR, INTEGER, ...
        is_own: whether it is the manifest's.
    """

    name: str
    type: str
    is_own: bool = False


class UnknownNameError(Exception):
    """A name that nothing has; its text says what there is.

    Args:
        message: what there is not, and what is like it.
    """


class Vocabulary:
    """The names that queries of a run may use; case does not matter.

    Args:
        terms: classes, labels and tags.
        columns: of images.
        taggers: names of the run's taggers.

    Attributes:
        terms: the same.
        columns: the same.
    """

    def __init__(self, terms: Sequence[Term], columns: Sequence[Column], taggers: Sequence[str] = ()) -> None:
        self.terms, self.columns = tuple(terms), tuple(columns)
        self._taggers = tuple(taggers)
        self._terms: dict[str, list[Term]] = {}
        for term in terms:
            self._terms.setdefault(term.name.casefold(), []).append(term)
        self._columns = {column.name.casefold(): column for column in columns}

    def split(self, name: Name) -> tuple[str, str | None]:
        """The name itself and its attribute: `car.score` is of the class car, if nothing is called so."""
        folded = name.text.casefold()
        if name.is_quoted or folded in self._terms or folded in self._columns:
            return name.text, name.attribute
        head, dot, attribute = name.text.rpartition(".")
        known = dot and head and attribute.lower() in ATTRIBUTES
        return (head, attribute.lower()) if known else (name.text, None)

    def names_of(self, name: Name) -> tuple[str, str]:
        """A name of terms as a person reads it, and as it is in a query; without its attribute."""
        text, kind = self.split(name)[0], f"{name.kind}:" if name.kind else ""
        bare = text if "*" in text and not name.is_quoted else quoted(text)
        return f"{kind}{text}", f"{kind}{bare}"

    def terms_of(self, name: Name) -> list[Term]:
        """The terms that a name is: none where it is a column, or nothing.

        A `*` in a bare name stands for any characters.

        Raises:
            UnknownNameError: what is before its colon allows none, or there is none.
        """
        text = self.split(name)[0]
        if "*" in text and not name.is_quoted:
            found = [term for term in self.terms if _fits(text.casefold(), term.name.casefold())]
        else:
            found = self._terms.get(text.casefold(), [])
        if name.kind is None:
            return found
        found = [term for term in found if self._is_of_kind(term, name.kind)]
        if not found:
            pool = [term.name for term in self.terms if self._is_of_kind(term, name.kind)]
            raise UnknownNameError(nothing_like(f"no {self._kind_in_words(name.kind)}", text, pool))
        return found

    def has_terms(self, name: str) -> bool:
        """Whether a class, label or tag is called so."""
        return name.casefold() in self._terms

    def column_of(self, text: str) -> Column | None:
        """The column of a name, or of a short one; None: there is none."""
        folded = text.casefold()
        if folded in self._columns or folded in self._terms:
            return self._columns.get(folded)
        return self._columns.get(SHORT.get(folded, ""))

    def column_asked(self, name: Name) -> Column | None:
        """The column that a test of a name may be about; None: there is none, or it is about terms.

        Raises:
            UnknownNameError: see `is_kind`.
        """
        if name.kind is None or name.kind.lower() == COLUMN:
            return self.column_of(name.text)
        return None if self.is_kind(name.kind) else self.column_of(name.kind)

    def short_of(self, column: str) -> str:
        """What a column is called where its values are shown: by its short name, where that means it."""
        short = next((short for short, name in SHORT.items() if name == column), column)
        found = self.column_of(short)
        return short if found and found.name == column else column

    def query_of(self, column: str) -> str:
        """A column in a query, told apart from a class, label or tag of its name."""
        return f"{COLUMN}:{quoted(column)}" if self.has_terms(column) else quoted(column)

    def is_kind(self, kind: str) -> bool:
        """Whether what stands before a colon chooses terms, as `label:` does.

        Raises:
            UnknownNameError: it chooses nothing, nor is it a column.
        """
        head, dot, tagger = kind.partition(".")
        if kind.lower() in ("class", "label", "tagger"):
            return True
        if head.lower() == "tagger" and dot:
            if tagger not in self._taggers:
                raise UnknownNameError(nothing_like("no tagger", tagger, self._taggers))
            return True
        if kind.lower() in KINDS or self.column_of(kind):
            return False
        names = [*KINDS, *(f"tagger.{name}" for name in self._taggers), *(it.name for it in self.columns)]
        raise UnknownNameError(nothing_like("before a colon, no kind or column", kind, names))

    def unknown(self, text: str) -> UnknownNameError:
        """What to say of a name that nothing has."""
        if text.lower() in ("and", "or", "not"):
            return UnknownNameError(f"no label, class or column {text!r}; between tests write {text.upper()}")
        found = [name for name, images in self._images_of_names.items() if images]
        likely = [*_close(text, found), *self._all_names]  # what images have is named first
        return UnknownNameError(nothing_like("no label, class or column", text, likely))

    def like(self, text: str, most: int = MOST_NAMED) -> list[str]:
        """Names that begin with a text, or have it, or are like it, best first: for who is typing."""
        folded = text.casefold()
        ranked = {
            name: (not name.casefold().startswith(folded), -images)
            for name, images in self._images_of_names.items()
            if folded in name.casefold()
        }
        return sorted(ranked, key=lambda name: (*ranked[name], name))[:most] or _close(text, self._all_names)

    @cached_property
    def _images_of_names(self) -> dict[str, int]:
        images = {column.name: 0 for column in self.columns}
        images |= {short: 0 for short in SHORT if self.column_of(short)}
        for term in self.terms:
            images[term.name] = images.get(term.name, 0) + term.images
        return images

    @cached_property
    def _all_names(self) -> list[str]:
        return sorted(self._images_of_names, key=lambda name: -self._images_of_names[name])

    def _is_of_kind(self, term: Term, kind: str) -> bool:
        head, dot, tagger = kind.partition(".")
        if head.lower() == "tagger":
            return term.kind == "tag" and (not dot or tagger == term.tagger)
        return term.kind == kind.lower()

    @staticmethod
    def _kind_in_words(kind: str) -> str:
        head, _, tagger = kind.partition(".")
        return f"tag of {tagger}" if tagger else {"tagger": "tag"}.get(head.lower(), head.lower())


def error_codes(text: str) -> list[str]:
    """The codes that `error:` is followed by; a `*` stands for any characters.

    Raises:
        UnknownNameError: there is no such code.
    """
    found = [code for code in ErrorCode if _fits(text.upper(), code)]
    if not found:
        raise UnknownNameError(nothing_like("no error code", text.upper(), list(ErrorCode)))
    return [str(code) for code in found]


def _fits(pattern: str, text: str) -> bool:
    """Whether a text is as a pattern says, in which a `*` stands for any characters."""
    first, *middle = pattern.split("*")
    if not middle:
        return text == pattern
    *middle, last = middle
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    place, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def nothing_like(what: str, text: str, names: Iterable[str]) -> str:
    """That there is nothing of a name, and what there is that is like it."""
    names = list(dict.fromkeys(names))
    if close := close_to(text, names):
        return f"{what} {text!r}; did you mean {_or(close)}?"
    if not names:
        return f"{what} {text!r}; the run has none"
    more = ", …" if len(names) > MOST_NAMED else ""
    return f"{what} {text!r}; there are {', '.join(map(_shown, names[:MOST_NAMED]))}{more}"


def close_to(text: str, names: Sequence[str]) -> list[str]:
    """Those of some names that a mistyped one may be meant to be: like it, or with it, in their order."""
    places = {name: place for place, name in enumerate(names)}
    has = [name for name in names if text.casefold() in name.casefold()] if len(text) > 1 else []
    close = sorted(_close(text, names), key=places.__getitem__)
    return list(dict.fromkeys([*close, *sorted(has, key=len)]))[:MOST_NAMED]


def _close(text: str, names: Iterable[str]) -> list[str]:
    """Names that are like a text in whatever case."""
    by_fold = {name.casefold(): name for name in names}
    return [by_fold[name] for name in difflib.get_close_matches(text.casefold(), by_fold, n=3, cutoff=0.6)]


def _shown(name: str) -> str:
    """A name as a query has it, in one line whatever it is."""
    return one_line(quoted(name))


def _or(names: Sequence[str]) -> str:
    *first, last = map(_shown, names)
    return f"{', '.join(first)} or {last}" if first else last
