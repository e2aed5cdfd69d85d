"""Progress of an evaluation: the evaluating code reports parts and counts; a listener shows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    """Shows the progress of an evaluation."""

    def begin(self, part: str, total: int) -> None:
        """A part begins: the name of its items, such as "answers", and their number."""

    def advance(self, count: int) -> None:
        """``count`` more items of the part are done."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within this block the listener receives the progress."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def begin(part: str, total: int) -> None:
    """A part of an evaluation begins."""
    listener = _listener.get()
    if listener is not None:
        listener.begin(part, total)


def report(count: int) -> None:
    """``count`` more items of the current part are done."""
    listener = _listener.get()
    if listener is not None:
        listener.advance(count)
