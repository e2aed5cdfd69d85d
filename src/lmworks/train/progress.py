"""What a person sees while it trains: one live line on a terminal, plain lines every few seconds elsewhere.

Knows no network: it is told of steps.
"""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

PLAIN_SECONDS = 10.0
WINDOW = 10  # steps that speeds are taken over


class TrainingProgress:
    """Step, loss, real tokens a second, peak memory, time left, share of the machine's own limit.

    Args:
        total: steps of the run.
        limit: measured FLOP/s of this machine in the precision used, or None where unknown.
        console: where to write; default: standard error.
        quiet: write nothing but what is said.
    """

    def __init__(
        self, total: int, limit: float | None = None, console: Console | None = None, quiet: bool = False
    ) -> None:
        self.total, self.limit, self.quiet = total, limit, quiet
        self.console = console or Console(stderr=True, highlight=False)
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=WINDOW)
        self._said = float("-inf")
        self._live: Progress | None = None

    def __enter__(self) -> TrainingProgress:
        if self.console.is_terminal and not self.quiet:
            self._live = Progress(
                BarColumn(bar_width=20), TextColumn("{task.description}"), console=self.console, transient=True
            )
            self._live.add_task("…", total=self.total)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, step: int, loss: float, tokens: int, seconds: float, flops: float, peak: int) -> None:
        """A step is done: its loss, real tokens, seconds, FLOPs; and the peak memory so far in bytes."""
        self._recent.append((seconds, tokens, flops))
        if self.quiet:
            return
        line = self._line(step, loss, peak)
        if self._live is not None:
            self._live.update(self._live.task_ids[0], completed=step, description=line)
        elif step == self.total or time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            self.console.print(line, soft_wrap=True)

    def say(self, text: str) -> None:
        """A line of its own, above the live one."""
        self.console.print(escape(text), soft_wrap=True)

    def _line(self, step: int, loss: float, peak: int) -> str:
        seconds = sum(part[0] for part in self._recent) or 1e-9
        speed = sum(part[1] for part in self._recent) / seconds
        left = (self.total - step) * seconds / len(self._recent)
        parts = [
            f"step {step}/{self.total}",
            f"loss {loss:.4f}",
            f"{speed:.0f} tokens/s",
            f"{peak / 1e9:.2f} GB",
            f"{int(left // 60)}:{int(left % 60):02d} left",
        ]
        if self.limit:
            share = sum(part[2] for part in self._recent) / seconds / self.limit
            parts.append(f"{share:.0%} of this machine's limit")
        return "  ".join(parts)
