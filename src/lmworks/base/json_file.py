"""JSON objects in files: read whole, their values checked by kind, errors by file and key. Knows no key by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError

REPAIR = "repair the file, or fetch it again"
NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def read_object(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object in a file; ``missing`` where there is no such file.

    Raises:
        InputError: it cannot be read, is not JSON, or is no object.
    """
    value = read_json(path, missing)
    if not isinstance(value, dict):
        raise InputError("not a JSON object", str(path), REPAIR)
    return value


def read_json(path: Path, missing: Any = None) -> Any:
    """The JSON value in a file; ``missing`` where there is no such file and that is not None.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    if missing is not None and not path.is_file():
        return missing
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", str(path), REPAIR) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", str(path), "give a folder that holds it") from error


def is_kind(value: Any, *kinds: type) -> bool:
    """Whether a value is of one of these kinds. A whole number is a number too; true is no number."""
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def check_kinds(values: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]], place: str) -> None:
    """Check the values of keys that are there; null counts as absent.

    Raises:
        InputError: one is of another kind; names the file, the key and what it should be.
    """
    for name, allowed in kinds.items():
        value = values.get(name)
        if value is not None and not is_kind(value, *allowed):
            raise wrong_kind(name, value, place, *allowed)


def wrong_kind(name: str, value: Any, place: str, *allowed: type) -> InputError:
    """The error for a value of another kind than a key may have."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    excerpt = text if len(text) <= 60 else f"{text[:57]}..."
    return InputError(f"{name} is {excerpt}, not {' or '.join(NAMES[kind] for kind in allowed)}", place, REPAIR)
