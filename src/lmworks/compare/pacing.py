"""How many steps a network may train in its share of a budget: a few are tried first, with all that surrounds them."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lmworks.base.journal import RunFolder
from lmworks.run.result import Run

TRIED_STEPS = 5
SKIPPED_STEPS = 2  # the first ones allocate memory
FEWEST_STEPS = 20
"""A network that its share does not buy so many steps is left out."""


@dataclass(frozen=True)
class Trial:
    """What a short run of a network took.

    Attributes:
        step: seconds of a step. overhead: seconds of all else: reading, evaluations, saving.
        steps_per_epoch: of its training rows.
    """

    step: float
    overhead: float
    steps_per_epoch: float


@dataclass
class Pace:
    """Corrections of trials by the rungs before: what really happened over what their trials promised.

    Attributes:
        step: of seconds a step. overhead: of the seconds around the steps.
    """

    step: float = 1.0
    overhead: float = 1.0

    def steps(self, trial: Trial, seconds: float) -> int:
        """The steps that fit into so many seconds."""
        return math.floor((seconds - trial.overhead * self.overhead) / (trial.step * self.step))

    def learn(self, trial: Trial, run: Path, seconds: float) -> None:
        """Correct by a run that took so many seconds in all."""
        taken = [float(event["seconds"]) for event in RunFolder(run).events("step")]
        self.step = sum(taken) / len(taken) / trial.step
        if trial.overhead:
            self.overhead = max(0.1, (seconds - sum(taken)) / trial.overhead)


def measure(start: Callable[[Path, dict[str, Any]], Run], folder: Path) -> Trial:
    """Try a few steps in a folder that is removed afterwards.

    Args:
        start: starts a run in a folder with these settings of training.
        folder: of the trial.
    """
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    try:
        run = start(folder, training(TRIED_STEPS))
        if run.stopped == "interrupted":
            raise KeyboardInterrupt
        seconds = time.monotonic() - began
        events = RunFolder(folder)
        taken = [float(event["seconds"]) for event in events.events("step")]
        examples = int(events.events("data")[0]["examples"])
        once = sum((events.events("start")[0].get("preparation") or {}).values())  # this machine, measured and kept
        around = max(0.0, seconds - sum(taken) - once)
        return Trial(median(taken[SKIPPED_STEPS:]), around, examples / _batch_size(events))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def training(steps: int) -> dict[str, Any]:
    """Settings of training so many steps.

    There is no evaluation on the way: choosing the best step by the held-out rows would make the comparison on these
    rows too good. Checkpoints are frequent, so that a killed ladder repeats little. One thread for each: recurrent
    networks have no use for more, and as much time is then as much computing.
    """
    return {"steps": steps, "evaluate_every": steps + 1, "checkpoint_every": max(1, steps // 4), "threads": 1}


def _batch_size(run: RunFolder) -> int:
    from lmworks.run import recipe as recipes

    return recipes.read(run.recipe).train.batch_size
