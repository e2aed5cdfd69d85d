"""Places within a JSON schema: its parts by JSON pointer (RFC 6901), schemas moved into others, the part with a fault.

Knows the keywords of JSON Schema that hold further schemas, and nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTED = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
SINGLE = ("items", "additionalItems", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
VALUES = ("const", "enum", "default", "examples")
"""Keywords that hold data, in which ``$ref`` means nothing."""
HOME = "#/$defs/document"


def parts(schema: Any) -> Iterator[tuple[str, Any]]:
    """The schemas that stand directly within one, each with its place: ("properties/name", {...})."""
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key in NAMED and isinstance(value, dict):
            yield from ((f"{key}/{escape(name)}", part) for name, part in value.items())
        elif key in LISTED and isinstance(value, list):
            yield from ((f"{key}/{place}", part) for place, part in enumerate(value))
        elif key in SINGLE:
            yield key, value


def escape(name: str) -> str:
    """A key as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def part_at(schema: Any, pointer: str) -> Any:
    """What a JSON pointer names; None where there is nothing."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdigit() and int(name) < len(schema):
            schema = schema[int(name)]
        elif isinstance(schema, dict) and name in schema:
            schema = schema[name]
        else:
            return None
    return schema


def moved(schema: Any, home: str) -> Any:
    """A schema for a place within another: its references to itself, such as ``#/$defs/node``, begin with ``home``."""
    if isinstance(schema, list):
        return [moved(part, home) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            result[key] = home + value[1:]
        else:
            result[key] = value if key in VALUES else moved(value, home)
    return result


def as_part(schema: Any, home: str) -> Any:
    """The same for a whole document, which is no document of its own there: without ``$schema`` and ``$id``."""
    if not isinstance(schema, dict):
        return schema
    return moved({key: value for key, value in schema.items() if key not in ("$schema", "$id")}, home)


def innermost_fault(schema: Any, fault_of: Callable[[Any], str]) -> tuple[str, str]:
    """The innermost part of a schema that has a fault by itself.

    Args:
        schema: has one.
        fault_of: what is wrong with a schema; empty: nothing.

    Returns:
        Its JSON pointer ("#/properties/name"), and what is wrong with it.
    """
    document = {"$defs": {"document": as_part(schema, HOME)}}
    pointer, fault, part, seen = "", fault_of(schema), schema, set[str]()
    while pointer not in seen:
        seen.add(pointer)
        reference = part.get("$ref") if isinstance(part, dict) else None
        places = [f"{pointer}/{name}" for name, _ in parts(part)]
        if isinstance(reference, str) and reference.startswith("#") and part_at(schema, reference[1:]) is not None:
            places.append(reference[1:])
        for place in places:
            inner = fault_of({**document, "$ref": HOME + quote(place, safe="/~!$&'()*+,;=:@?")})
            if inner:
                pointer, fault, part = place, inner, part_at(schema, place)
                break
    return f"#{pointer}", fault.replace(HOME[1:], "")
