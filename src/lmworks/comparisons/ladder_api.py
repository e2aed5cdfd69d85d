"""A ladder as a Python call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.errors import check_type
from lmworks.base.settings import build
from lmworks.comparisons import ladder as ladders
from lmworks.comparisons import ladder_page, ladder_report
from lmworks.comparisons.ladder_settings import LadderSettings, LadderState, RungState
from lmworks.run.result import Say


@dataclass(frozen=True)
class Ladder:
    """A ladder whose rungs have been run, or left out.

    Attributes:
        folder: with a run for each rung, ladder.json and ladder.html.
        state: what ladder.json holds.
    """

    folder: Path
    state: LadderState

    @property
    def rows(self) -> list[RungState]:
        """One a rung, from the simplest: ``title``, ``value`` (bits per byte, or accuracy) with its ``interval``,
        ``parameters``, ``seconds``, ``training_seconds``, ``sample``, ``folder`` below the ladder's; of a rung that was
        left out ``state`` and ``reason``."""
        return self.state.steps

    @property
    def best(self) -> RungState | None:
        """The rung with the best figure."""
        return ladder_report.best(self.state)

    @property
    def remarks(self) -> list[str]:
        """What a reader must know: the time that was spent, what was left out and why, notes of the rungs."""
        return ladder_report.remarks(self.state)

    def _repr_html_(self) -> str:
        """Table and picture, for notebooks."""
        return ladder_page.notebook_html(self.state)


def ladder(
    data: str | Path | None = None,
    /,
    *,
    budget: str | float | None = None,
    task: str | None = None,
    only: Sequence[str] = (),
    out: str | Path | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Ladder:
    """Train models from the simplest to the newest on the same rows within a budget of time, and compare them.

    Args:
        data: a file, a named data set or ``hub:owner/name``; None: go on with the ladder in ``out``.
        budget: time of all rungs together: "90s", "10m" (default), "1h", or seconds.
        task: "language" (bits per byte of the same held-out bytes) or "classify" (accuracy on the same held-out rows);
            default: rows with labels are classified.
        only: names of rungs; default: all.
        out: the ladder's folder; a new one, or that of a ladder that was killed, which goes on with its own settings.
            Default: runs/<time>-ladder.
        say: gets each line of progress; default: silent but for the progress of training.
        **settings: further groups: ``data={"held_out": 0.2}``, ``tokenizer={"vocab_size": 4000}``,
            ``rung={"lstm": {"train": {"learning_rate": 0.01}}}``.

    Raises:
        InputError: the data or a setting cannot be used.
    """
    check_type(data, (str, Path, type(None)), "data", "give a file or a named data set")
    options = {"source": data and str(data), "budget": budget, "task": task, "only": list(only)}
    values = {name: value for name, value in options.items() if value is not None}
    folder = Path(out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-ladder")
    if data is None:
        return Ladder(folder, ladders.resume(folder, say))
    return Ladder(folder, ladders.run_ladder(build(LadderSettings, {**settings, **values}, "ladder"), folder, say))
