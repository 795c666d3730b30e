"""Custom resources against their definitions, as strictly as `kubectl --validate=strict`, without a cluster.

Follows https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cel
import jsonschema
import yaml

Schema = dict[str, Any]


@functools.cache
def definitions(folder: Path) -> dict[tuple[str, str], Schema]:
    """The schema of each kind and version that the definitions in a folder declare."""
    found = {}
    for path in folder.glob("*.yaml"):
        definition = yaml.load(
            path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
        spec = definition["spec"]
        for version in spec["versions"]:
            key = spec["names"]["kind"], f"{spec['group']}/{version['name']}"
            found[key] = version["schema"]["openAPIV3Schema"]
    return found


def faults(resource: dict[str, Any], folder: Path) -> list[str]:
    """What the API server would refuse in a custom resource.

    Raises:
        KeyError: no definition declares its kind and version.
    """
    schema = definitions(folder)[resource["kind"], resource["apiVersion"]]
    checked = {**schema, "properties": {**schema["properties"], "metadata": {"type": "object"}}}
    found = jsonschema.Draft7Validator(closed(checked)).iter_errors(resource)
    wrong = [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]
    return [*wrong, *broken_rules(schema, resource)]


def closed(schema: Schema) -> Schema:
    """A structural schema as JSON Schema in which a field that is not declared is an error."""
    schema = {key: value for key, value in schema.items() if key not in {"format", "nullable"}} | (
        {"type": [schema["type"], "null"]} if schema.get("nullable") else {}
    )
    if schema.get("x-kubernetes-int-or-string"):
        schema["type"] = ["integer", "string"]
    if properties := schema.get("properties"):
        schema["properties"] = {name: closed(each) for name, each in properties.items()}
        # the API server fills in defaults before it looks for what is required
        schema["required"] = [
            name for name in schema.get("required", []) if "default" not in properties.get(name, {})
        ]
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = closed(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = closed(schema["items"])
    return schema


def broken_rules(schema: Schema, value: object, path: str = "") -> Iterator[str]:
    """The messages of the CEL rules that a value breaks, those about changes left out."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"] and cel.evaluate(rule["rule"], {"self": value}) is not True:
            yield f"{path}: {rule.get('message', rule['rule'])}"
    for key, inner, each in inside(schema, value):
        yield from broken_rules(inner, each, f"{path}.{key}".lstrip("."))


def inside(schema: Schema, value: object) -> Iterator[tuple[str, Schema, object]]:
    """What a value holds: its key or index, the schema for it, and itself."""
    if isinstance(value, dict):
        for key, each in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if isinstance(inner, dict):
                yield key, inner, each
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, each in enumerate(value):
            yield str(index), schema["items"], each
