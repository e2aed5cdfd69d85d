"""What was measured on this machine, by name, in one file of the cache; good for one processor and one PyTorch."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, TypeVar

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, cache_folder
from lmworks.base.machine import identity

Kind = TypeVar("Kind")
MAX_ENTRIES = 200  # measurements that are kept; the oldest go


def read(name: str, kind: type[Kind]) -> Kind | None:
    """A measurement of this machine; None where there is none, or where the file holds something else in its place.

    Args:
        name: of the measurement.
        kind: the dataclass that was written.
    """
    from pydantic import TypeAdapter, ValidationError

    values = _all().get(f"{identity()}; {name}")
    try:
        return None if values is None else TypeAdapter(kind).validate_python(values)
    except ValidationError:
        return None


def write(name: str, values: dict[str, Any]) -> None:
    """Keep a measurement. Where the cache cannot be written it is made again next time."""
    every = _all()
    every.pop(f"{identity()}; {name}", None)
    every[f"{identity()}; {name}"] = values
    newest = dict(list(every.items())[-MAX_ENTRIES:])
    with contextlib.suppress(OSError, InputError):
        atomic_write(_place(), json.dumps(newest, indent=1) + "\n")


def _place() -> Path:
    return cache_folder() / "measurements.json"


def _all() -> dict[str, Any]:
    try:
        every = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return every if isinstance(every, dict) else {}
