"""Seconds of this process that went into what a machine does once: fetching files, and measuring itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

FETCHING, MEASURING = "fetching the model", "measuring this machine"
LEAST_SECONDS = 1.0  # less is not worth a line

_seconds: dict[str, float] = {}
_running: set[str] = set()


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Add the time of this block to a kind of work; a block inside one of the same kind is counted once.

    Args:
        name: FETCHING or MEASURING.
    """
    if name in _running:
        yield
        return
    _running.add(name)
    started = time.perf_counter()
    try:
        yield
    finally:
        _running.discard(name)
        _seconds[name] = _seconds.get(name, 0.0) + time.perf_counter() - started


def seconds() -> dict[str, float]:
    """Seconds by kind of work, since the process began."""
    return dict(_seconds)


def seconds_since(earlier: Mapping[str, float]) -> dict[str, float]:
    """Seconds by kind of work since an earlier call of :func:`seconds`, where they are worth a line."""
    spent = {name: total - earlier.get(name, 0.0) for name, total in _seconds.items()}
    return {name: value for name, value in spent.items() if value >= LEAST_SECONDS}
