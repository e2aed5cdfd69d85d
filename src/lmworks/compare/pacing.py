"""How long a network may train in its share of a budget: its plan says what surrounds the steps, and how many fit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base import preparation
from lmworks.base.journal import RunFolder
from lmworks.run.plan import Plan
from lmworks.train.settings import MOST_STEPS
from lmworks.train.time_limit import EVENT as LENGTH

FEWEST_STEPS = 20
"""A network that its share does not buy so many steps is left out."""


@dataclass(frozen=True)
class Expected:
    """What the plan of a network promises.

    Attributes:
        step: seconds of a step.
        around: seconds of opening data and model, and of evaluations.
    """

    step: float
    around: float


@dataclass
class Pace:
    """Corrections of plans by the rungs before: what really happened over what their plans promised.

    Attributes:
        step: of seconds a step.
        around: of the seconds around the steps; at first with room for saving, the report and the ladder's figures.
    """

    step: float = 1.0
    around: float = 2.0

    def seconds(self, expected: Expected, share: float) -> float:
        """Seconds of training in a share of so many seconds; none are left where it is negative."""
        return share - self.around * expected.around

    def steps(self, expected: Expected, share: float) -> int:
        """The steps that fit into a share."""
        return math.floor(self.seconds(expected, share) / (expected.step * self.step or math.inf))

    def learn(self, expected: Expected, run: Path, seconds: float) -> None:
        """Correct by a run that took so many seconds, its figures on the ladder's rows included."""
        events = RunFolder(run)
        lengths, trained = events.events(LENGTH), sum(float(event["seconds"]) for event in events.events("step"))
        if lengths and expected.step:
            self.step = lengths[-1]["step_seconds"] / expected.step
        if expected.around:
            timed = sum(event["seconds"] for event in lengths)
            self.around = max(0.1, (seconds - trained - timed) / expected.around)


def expect(make_plan: Callable[[], Plan]) -> Expected:
    """What a plan promises; measuring this machine, which the run that follows does not repeat, is left out."""
    before, began = preparation.seconds(), time.monotonic()
    plan = make_plan()
    once = sum(preparation.seconds().values()) - sum(before.values())
    opening = max(0.0, time.monotonic() - began - once)
    return Expected(plan.seconds.get("training", 0.0) / plan.steps, opening + plan.seconds.get("evaluation", 0.0))


def training(seconds: float, steps: int, epochs: float) -> dict[str, Any]:
    """Settings of training for so many seconds, with about so many steps, and at most so many epochs.

    There is no evaluation on the way: choosing the best step by the held-out rows would make the comparison on these
    rows too good. Checkpoints are frequent, so that a killed ladder repeats little. One thread for each: recurrent
    networks have no use for more, and as much time is then as much computing.
    """
    every = max(1, steps // 4)
    limits = {"max_time": seconds, "epochs": epochs}
    return {**limits, "evaluate_every": MOST_STEPS, "checkpoint_every": every, "threads": 1}


def cut_short(run: Path) -> str:
    """What to say of a run whose time was over before its planned steps; else nothing."""
    events = RunFolder(run)
    ends, sessions = events.events("session_end"), events.events("session")
    if not ends or ends[-1]["reason"] != "time":
        return ""
    return f"stopped after {ends[-1]['last']:,} of {sessions[-1]['steps']:,} planned steps, when its time was over"
