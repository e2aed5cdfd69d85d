"""How far a measurement is: what measures reports rows that are done, and whoever wants to show it listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[int], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[int], None]) -> Iterator[None]:
    """Within this block the listener is called with the number of rows that were measured since its last call."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report(rows: int) -> None:
    """So many more rows are measured."""
    listener = _listener.get()
    if listener is not None:
        listener(rows)
