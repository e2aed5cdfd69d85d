"""How far a measurement is: what measures says what it counts and how much is done; whoever shows it listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    """Shows how far a measurement is."""

    def begin(self, part: str, total: int) -> None:
        """A part begins: what is counted in it, such as "answers", and how many there are."""

    def advance(self, count: int) -> None:
        """So many more of the part are done."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within this block the listener is told of parts and of what is done."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def begin(part: str, total: int) -> None:
    """A part of a measurement begins."""
    listener = _listener.get()
    if listener is not None:
        listener.begin(part, total)


def report(count: int) -> None:
    """So many more of the part that has begun are done."""
    listener = _listener.get()
    if listener is not None:
        listener.advance(count)
