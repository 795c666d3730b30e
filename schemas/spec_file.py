"""Reads a job spec from YAML and the command line; errors name the key, its value and what is allowed."""

import copy
import difflib
import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)
from pydantic_core import ErrorDetails

from schemas.exceptions import SpecError
from schemas.section import SHA256
from schemas.spec import _ENDPOINT, _VARIABLE, SHORT_FORMS, TAGGERS, JobSpec, ManifestFormat
from schemas.tasks import TAG, ModelSpec
from schemas.words import value_text

_PATTERNS = {
    SHA256: "64 lower-case hexadecimal digits",
    _ENDPOINT: "http://HOST:PORT or https://HOST",
    _VARIABLE: "the beginning of a variable's name: letters, digits, _",
}
"""What the patterns allow, in words."""


def read_spec(path: str | None, overrides: dict[str, Any]) -> JobSpec:
    """Reads the job spec of a YAML file and applies the command line's overrides.

    Args:
        path: the YAML file; None if the overrides have all settings.
        overrides: dotted keys to values, such as {"detector.nms_iou": 0.5}.

    Raises:
        SpecError: with each key that is wrong, its value and what is allowed.
    """
    return override_spec(_read_yaml(path) if path else {}, overrides, path or "the command line")


def override_spec(values: dict[str, Any], overrides: dict[str, Any], source: str) -> JobSpec:
    """Builds a checked spec from plain values and overrides; see `read_spec` and `build_spec`.

    Where they name another model, the weights, options and categories in `values` are not for it.

    Raises:
        SpecError: see `build_spec`; or one override sets a part of what another one leaves out.
    """
    values = without_replaced(values, overrides)
    for key in sorted(overrides, key=lambda key: key.count(".")):  # a section before its keys
        inner = next((other for other in overrides if other.startswith(f"{key}.")), None)
        if inner and overrides[key] is None:
            raise SpecError(f"{key}: found null, and {inner} beside it; allowed: one of the two")
        _set(values, key.split("."), overrides[key])
    return build_spec(values, source)


def without_replaced(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Plain values of a spec, without what belongs to models in whose place the overrides name others."""
    values = copy.deepcopy(values)
    for key, model in overrides.items():
        name, _, last = key.rpartition(".")
        section = value_at(values, name) if last == "model" and model and name != TAGGERS else None
        if isinstance(section, dict) and _bare(section.get("model", _usual_model(name))) != _bare(model):
            for setting in {*ModelSpec.model_fields, *_OF_A_MODEL} & section.keys():
                del section[setting]
    return values


_OF_A_MODEL = ("layout", "labels", "prompt", "text_model", "tokenizer", "logit_scale", "logit_bias")
"""Settings of one kind that are, like those of all kinds, about the model that is named beside them."""


def value_at(values: Any, key: str) -> Any:
    """The value at a dotted key of nested dictionaries; None where there is none."""
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _usual_model(section: str) -> str:
    """The model of a section that names none."""
    field = JobSpec.model_fields.get(section)
    return field.default.model if field and isinstance(field.default, ModelSpec) else ""


def _bare(model: object) -> str:
    """A model's name; torchvision's have two."""
    return str(model).removeprefix("torchvision/")


def build_spec(values: dict[str, Any], source: str) -> JobSpec:
    """Builds a checked spec from plain values; `source` names their origin in errors.

    Raises:
        SpecError: with each key that is wrong, its value and what is allowed.
    """
    try:
        return JobSpec.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in _explain(error.errors()))
        raise SpecError(f"{source} is not a job that can run:\n{lines}") from None


class TwiceError(ValueError):
    """A key is there twice in a YAML text."""


class _TwiceError(yaml.constructor.ConstructorError):
    """The same, with its place."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's own loader takes the last; says where faults are.

    A key is what is written: YAML 1.1 takes `on`, `off`, `yes` and `no` for truth values.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, TypeError, ValueError):  # of a 30th of February, of `!!bool x`
            what = repr(node.value) if isinstance(node, yaml.ScalarNode) else "a value"
            problem = f"{what} is none of its type,"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark) from None

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if key.tag == _TRUTH:
                key.tag = yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set[str]()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in keys:
                problem = f"the key {key.value!r} is there twice"
                raise _TwiceError(problem=problem, problem_mark=key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


_TRUTH = "tag:yaml.org,2002:bool"
"""What YAML calls the type of truth values."""


def parse_yaml(text: str) -> Any:
    """The value that a YAML text has.

    Raises:
        TwiceError: a key is there twice.
        ValueError: it is not YAML, or a value in it is none (a 30th of February).
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        kind = TwiceError if isinstance(error, _TwiceError) else ValueError
        raise kind(f"{error.problem}{where}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(
            f"a character that no text has (#x{ord(text[error.position]):04x}) in line {line}"
        ) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


_KINDS: dict[type, str] = {list: "a list", str: "one text"}
"""What a YAML file may hold that is no job spec."""


def _read_yaml(path: str) -> dict[str, Any]:
    is_spec = path.endswith((".yaml", ".yml"))
    hint = (
        "" if is_spec else f". If it is a manifest or an image, give it with --manifest {shlex.quote(path)}"
    )
    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot read the job spec {path}: {error.strerror}{hint}") from None
    except TwiceError as error:
        raise SpecError(f"{path}: {error}") from None
    except ValueError as error:
        raise SpecError(f"{path} is not YAML in UTF-8: {error}{hint}") from None
    if not isinstance(values, dict):
        what = "is empty" if values is None else f"holds {_KINDS.get(type(values), 'one value')}"
        raise SpecError(
            f"{path} {what}, where keys and values are allowed{hint}. The smallest job spec is\n"
            "  manifest: photos.csv\n  output: runs/today"
        )
    return values


def _set(values: dict[str, Any], keys: list[str], value: object) -> None:
    """Sets one value in nested dictionaries; a section in short form is expanded first."""
    section = values
    for number, key in enumerate(keys[:-1]):
        inner = section.get(key)
        if isinstance(inner, str | list) and (short := _short_form(keys[: number + 1])):
            inner = {short: inner}
        section[key] = section = dict(inner) if isinstance(inner, dict) else {}
    section[keys[-1]] = value


def _short_form(path: Sequence[str | int]) -> str | None:
    """The key that the short form of a section stands for; None where it has no short form."""
    name = TAG.name if len(path) == 2 and path[0] == TAGGERS else ".".join(map(str, path))
    return SHORT_FORMS.get(name)


def _explain(details: list[ErrorDetails]) -> list[str]:
    """One line for each error: its path, its value, what is allowed."""
    problems: dict[str, dict[str, None]] = {}
    paths = [tuple(part for part in detail["loc"] if part not in _NO_KEYS) for detail in details]
    for detail, path in zip(details, paths, strict=True):
        if any(len(other) > len(path) and other[: len(path)] == path for other in paths):
            continue  # it was read as another type of a union, in which it has an error
        where = ".".join(map(str, path))
        match detail["type"]:
            case "missing":
                problem, allowed = f"{where}: missing, and it has no default{_option(path)}", ""
            case "extra_forbidden":
                problem, allowed = f"{where}: unknown key", _known_keys(path)
            case "value_error":
                text = str(detail["ctx"]["error"])
                problem, allowed = f"{where}{'' if not where or text[0] == '.' else ': '}{text}", ""
            case "string_pattern_mismatch":
                problem, allowed = (
                    f"{where}: found {_shown(path, detail['input'])}",
                    _PATTERNS[detail["ctx"]["pattern"]],
                )
            case kind:
                problem = f"{where}: found {_shown(path, detail['input'])}"
                message = detail["msg"].removeprefix("Input should be ")
                allowed = _ALLOWED.get(kind, message).format_map(detail.get("ctx", {}))
                if kind == "model_type" and _short_form(path):
                    allowed = f"text or {allowed}"
                elif kind == "string_type" and isinstance(detail["input"], date | bool | int | float):
                    allowed += " (in quotes)"
        # pydantic reports a value of a union once for each of its types
        problems.setdefault(problem, {})[allowed] = None
    return [
        f"{problem}{'; allowed: ' if any(allowed) else ''}{' or '.join(allowed)}"
        for problem, allowed in problems.items()
    ]


def _shown(path: Sequence[str | int], value: object) -> str:
    """A value for a message, as YAML has it; not one of headers, which may be a secret."""
    if "headers" in path:
        return f"a value of type {type(value).__name__}"
    return value_text(value)


_UNION_BRANCHES = {
    "ActorRange",
    "str",
    "list[str]",
    "int",
    "float",
    "constrained-int",
    "constrained-float",
    "constrained-str",
    "list[constrained-str]",
} | {f"literal[{','.join(repr(form) for form in forms)}]" for forms in (("auto",), get_args(ManifestFormat))}
"""What pydantic puts into a path for the alternatives of a union; these are not keys of the spec."""

_NO_KEYS = {*_UNION_BRANCHES, "[key]"}
"""The same, and what it puts there for a key that is no text."""

_ALLOWED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "model_type": "keys and values",
    "dict_type": "keys and values",
    "list_type": "a list",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "string_too_short": "text that is not empty",
    "too_short": "something that is not empty",
}


def _option(path: Sequence[str | int]) -> str:
    """How a key that has to be there is set; "" for one that has no option of its own."""
    return f"; set it in a job spec or with --{path[0]}" if path in (("manifest",), ("output",)) else ""


def _known_keys(path: Sequence[str | int]) -> str:
    """The keys that are allowed in place of an unknown one, with the one that was probably meant."""
    known, name = _keys_of(path[:-1]), str(path[-1])
    meant = _sections_with(name) or difflib.get_close_matches(name, known, n=1)
    if meant == [TAGGERS]:
        meant = [f"`{TAGGERS}: {{NAME: …}}`, with a name of your own for each"]
    return ", ".join(known) + (f" (did you mean {' or '.join(meant)}?)" if meant else "")


def _sections_with(name: str) -> list[str]:
    """The dotted keys of all sections that have a key of this name."""
    sections = {key: _section_type(field.annotation) for key, field in JobSpec.model_fields.items()}
    sections[f"{TAGGERS}.NAME"] = sections.pop(TAGGERS)
    return [f"{key}.{name}" for key, section in sections.items() if section and name in section.model_fields]


def _keys_of(path: Sequence[str | int]) -> list[str]:
    """The keys allowed at a path of the spec."""
    model: type[BaseModel] = JobSpec
    for part in path:
        if (field := model.model_fields.get(str(part))) is None:
            continue  # a URL of `storage`
        inner = _section_type(field.annotation)
        if inner is None:
            break
        model = inner
    return list(model.model_fields)


def _section_type(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_type, get_args(annotation))), None)
