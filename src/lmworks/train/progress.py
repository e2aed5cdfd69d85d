"""Progress of training: one live line on a terminal, plain lines every few seconds elsewhere. Knows no network."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from lmworks.base import process_memory
from lmworks.base.figures import count_of

PLAIN_SECONDS = 10.0  # between two lines where the output is no terminal
EVALUATION_SECONDS = 1.0  # between two evaluations that are shown
LIVE_SECONDS = 0.25  # between two updates of the live line
ABOVE_LIMIT = "over 100% of a limit measured too low"
WINDOW = 10  # updates that speeds are averaged over


class Sums(NamedTuple):
    """Totals of all steps so far: seconds, real tokens, floating-point operations."""

    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0


class TrainingProgress:
    """Step, loss, real tokens per second, peak memory, time left, fraction of the machine's measured rate.

    A step of a small network takes milliseconds, so figures are computed only when they are shown.

    Args:
        total: steps of the run.
        limit: measured FLOP/s of this machine in the precision used, or None where unknown.
        console: where to write; default: standard error.
        quiet: write only the texts given to :meth:`say`.
    """

    def __init__(
        self, total: int, limit: float | None = None, console: Console | None = None, quiet: bool = False
    ) -> None:
        self.total, self.limit, self.quiet = total, limit, quiet
        self.console = console or Console(stderr=True, highlight=False)
        self._updates: deque[tuple[int, Sums]] = deque(maxlen=WINDOW)
        self._updated = self._evaluated = float("-inf")
        self._left_out = 0
        self._live: Progress | None = None

    def __enter__(self) -> TrainingProgress:
        if self.console.is_terminal and not self.quiet:
            self._live = Progress(
                BarColumn(bar_width=20),
                TextColumn("{task.description}"),
                console=self.console,
                transient=True,
                auto_refresh=False,
            )
            self._live.add_task("…", total=self.total)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, step: int, loss: float, sums: Callable[[], Sums]) -> None:
        """A step is done.

        Args:
            step: number of the step.
            loss: of the step.
            sums: called only when a line is shown.
        """
        now = time.monotonic()
        pause = PLAIN_SECONDS if self._live is None else LIVE_SECONDS
        if self.quiet or (now - self._updated < pause and step != self.total):
            return
        self._updated = now
        if not self._updates:
            self._updates.append((step - 1, Sums()))
        self._updates.append((step, sums()))
        line = self._line(step, loss)
        if self._live is None:
            self.console.print(line, soft_wrap=True)
        else:
            self._live.update(self._live.task_ids[0], completed=step, description=line)
            self._live.refresh()

    def say(self, text: str) -> None:
        """A line of its own, above the live one."""
        self.console.print(escape(text), soft_wrap=True)

    def show_evaluation(self, lines: Sequence[str], step: int) -> None:
        """Show the figures of an evaluation; at most one evaluation per second, and the number of skipped ones.

        Args:
            lines: to be written.
            step: of the evaluation; that of the last step is always shown.
        """
        if not lines:
            return
        now = time.monotonic()
        if now - self._evaluated < EVALUATION_SECONDS and step != self.total:
            self._left_out += 1
            return
        if self._left_out:
            self.say(f"({count_of(self._left_out, 'evaluation')} in between: see the journal)")
        self._evaluated, self._left_out = now, 0
        for line in lines:
            self.say(line)

    def _line(self, step: int, loss: float) -> str:
        (first, before), (last, after) = self._updates[0], self._updates[-1]
        seconds = max(after.seconds - before.seconds, 1e-9)
        left = (self.total - step) * seconds / max(last - first, 1)
        parts = [
            f"step {step}/{self.total}",
            f"loss {loss:.4f}",
            f"{(after.tokens - before.tokens) / seconds:.0f} tokens/s",
            f"{process_memory.peak_memory() / 1e9:.2f} GB",
            f"{int(left // 60)}:{int(left % 60):02d} left",
        ]
        if self.limit:
            utilization = (after.flops - before.flops) / seconds / self.limit
            parts.append(f"{utilization:.0%} of this machine's limit" if utilization <= 1 else ABOVE_LIMIT)
        return "  ".join(parts)


class EvaluationProgress:
    """Progress of an evaluation and the time left: a live bar on a terminal, a plain line every few seconds elsewhere.
    A listener of evaluate/progress.

    Args:
        title: of the evaluation.
        console: where to write; default: standard error.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title, self.part, self.total, self.done = title, "", 1, 0
        self.console = console or Console(stderr=True, highlight=False)
        self._began = self._shown = time.monotonic()
        self._live: Progress | None = None

    def __enter__(self) -> EvaluationProgress:
        self._shown = time.monotonic()
        if self.console.is_terminal:
            self._live = Progress(
                BarColumn(bar_width=20), TextColumn("{task.description}"), console=self.console, transient=True
            )
            self._live.add_task(self.title, total=None)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, part: str, total: int) -> None:
        """A part begins; ``part`` names the items that are counted, ``total`` is their number."""
        self.part, self.total, self.done, self._began = part, max(1, total), 0, time.monotonic()
        self._show()

    def advance(self, count: int) -> None:
        """``count`` more items of the part are done."""
        self.done = min(self.total, self.done + count)
        if self._live is None and time.monotonic() - self._shown >= PLAIN_SECONDS and self.done < self.total:
            self._shown = time.monotonic()
            self.console.print(self._line(), soft_wrap=True)
        self._show()

    def _show(self) -> None:
        if self._live is not None:
            task = self._live.task_ids[0]
            self._live.update(task, total=self.total, completed=self.done, description=self._line())

    def _line(self) -> str:
        line = f"{self.title}: {self.part} {self.done}/{self.total}"
        if not self.done:
            return line
        left = (time.monotonic() - self._began) / self.done * (self.total - self.done)
        return f"{line}  {int(left // 60)}:{int(left % 60):02d} left"
