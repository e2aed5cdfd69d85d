"""What was measured on this machine, by name, in one file of the cache; good for one processor and one PyTorch."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from lmworks.base.contention import UNDISTURBED_SHARE
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, cache_folder
from lmworks.base.processor import identity

Measurement = TypeVar("Measurement")
WRITTEN = "written"  # the entry with the time of a measurement, in seconds since 1970
MAX_ENTRIES = 200  # measurements that are kept; the oldest go
REPEAT_AFTER = 600.0
"""Seconds before a disturbed measurement is repeated: until then the same programs are probably still running."""
TRIES = 2
"""A measurement that other programs disturbed is repeated by later processes, until it was made so often."""


class Repeatable(Protocol):
    """A measurement that is improved by repeating it: a dataclass.

    Attributes:
        share: of the processor that it got (base/contention).
        tries: measurements of which it is the best.
    """

    @property
    def share(self) -> float: ...

    @property
    def tries(self) -> int: ...

    def best_of(self, earlier: Self) -> Self:
        """The better figures of both; other programs can only make a measurement worse."""
        ...


Repeated = TypeVar("Repeated", bound=Repeatable)


def best_measurement(
    name: str, kind: type[Repeated], measure: Callable[[], Repeated], refresh: bool = False
) -> Repeated:
    """The best measurement of this machine: from the cache, or made now; repeated if other programs disturbed it.

    Args:
        name: of the measurement.
        kind: its dataclass.
        measure: makes it.
        refresh: make it now, whatever is in the cache.
    """
    key = _key(name)  # importing PyTorch to measure may change the number of threads
    earlier = None if refresh else _read(key, kind)
    if earlier is not None and (earlier.share >= UNDISTURBED_SHARE or earlier.tries >= TRIES or _is_recent(key)):
        return earlier
    latest = measure()
    best = latest if earlier is None else latest.best_of(earlier)
    _write(key, asdict(best))  # type: ignore[call-overload]
    return best


def read(name: str, kind: type[Measurement]) -> Measurement | None:
    """A measurement of this machine; None where there is none, or where the file holds something else in its place.

    Args:
        name: of the measurement.
        kind: the dataclass that was written.
    """
    return _read(_key(name), kind)


def is_recent(name: str) -> bool:
    """Whether a measurement was written so short a time ago that a disturbed one is not repeated yet."""
    return _is_recent(_key(name))


def write(name: str, values: dict[str, Any]) -> None:
    """Keep a measurement. Where the cache cannot be written it is made again next time."""
    _write(_key(name), values)


def _key(name: str) -> str:
    return f"{identity()}; {name}"


def _read(key: str, kind: type[Measurement]) -> Measurement | None:
    from pydantic import TypeAdapter, ValidationError

    values = _read_entries().get(key)
    try:
        return None if values is None else TypeAdapter(kind).validate_python(values)
    except ValidationError:
        return None


def _is_recent(key: str) -> bool:
    values = _read_entries().get(key)
    written = values.get(WRITTEN) if isinstance(values, dict) else None
    return isinstance(written, int | float) and 0 <= time.time() - written < REPEAT_AFTER


def _write(key: str, values: dict[str, Any]) -> None:
    entries = _read_entries()
    entries.pop(key, None)
    entries[key] = {**values, WRITTEN: time.time()} if isinstance(values, dict) else values
    newest = dict(list(entries.items())[-MAX_ENTRIES:])
    with contextlib.suppress(OSError, InputError):
        atomic_write(_path(), json.dumps(newest, indent=1) + "\n")


def _path() -> Path:
    return cache_folder() / "measurements.json"


def _read_entries() -> dict[str, Any]:
    try:
        entries = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
