"""Ctrl-C and SIGTERM end a run after the current step. Knows no loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def defer_signals() -> Iterator[Callable[[], bool]]:
    """Within this block, the first Ctrl-C or SIGTERM is only recorded; a second one interrupts at once.

    Yields:
        A function that returns whether a signal was received. Only the main thread receives signals; in another one
        it returns False.
    """
    signals: list[int] = []

    def record(number: int, frame: object) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(signals)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
