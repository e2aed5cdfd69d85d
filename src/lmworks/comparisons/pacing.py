"""How long a network may train in its share of a budget: its share without the time that all else takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.journal import RunFolder
from lmworks.train.settings import MOST_STEPS
from lmworks.train.time_limit import EVENT as LENGTH

MIN_TRAINED_STEPS = 20
"""A network whose share bought fewer steps is left out."""
FIRST_SHARE = 0.3
"""Of the first network's share: for all but training, of which nothing is known yet."""
LEAST_SHARE = 0.1
"""Of a share: with less left for training, none is begun."""


@dataclass
class RunOverhead:
    """What the network on the rung before took besides training.

    Attributes:
        seconds: of opening, evaluations, saving and the ladder's own figures; None before the first network.
    """

    seconds: float | None = None

    def training_seconds(self, share: float) -> float:
        """Seconds of training in a share (in seconds) of the budget; negative where nothing is left for it."""
        return share - (FIRST_SHARE * share if self.seconds is None else self.seconds)

    def record(self, run: Path, seconds: float) -> None:
        """Keep what a run took besides training, and besides measuring this machine, which is done once.

        Args:
            run: its folder.
            seconds: that it took in all.
        """
        events = RunFolder(run)
        once = sum((events.events("start")[0].get("preparation") or {}).values())
        trained = [float(event["seconds"]) for kind in ("step", LENGTH) for event in events.events(kind)]
        self.seconds = max(0.0, seconds - once - sum(trained))


def training(seconds: float, epochs: float) -> dict[str, Any]:
    """Settings of training for at most ``seconds`` and at most ``epochs``.

    There is no evaluation on the way: choosing the best step by the held-out rows would make the comparison on these
    rows too good. Each trains on one thread, since recurrent networks have no use for more: equal times
    are then equal amounts of computing.
    """
    return {"max_time": seconds, "epochs": epochs, "evaluate_every": MOST_STEPS, "threads": 1}


def too_few_steps(run: Path) -> int | None:
    """The steps that a run has trained, where its time was too short for MIN_TRAINED_STEPS; else None."""
    events = RunFolder(run)
    done = max((int(event["step"]) for event in events.events("step")), default=0)
    lengths = events.events(LENGTH)
    return done if done < MIN_TRAINED_STEPS and lengths and done < lengths[-1]["without_limit"] else None


def cut_short(run: Path) -> str:
    """What to say of a run whose time was over before its planned steps; else nothing."""
    events = RunFolder(run)
    ends, sessions = events.events("session_end"), events.events("session")
    if not ends or ends[-1]["reason"] != "time":
        return ""
    return f"stopped after {ends[-1]['last']:,} of {sessions[-1]['steps']:,} planned steps, when its time was over"


def seconds_alive(run: RunFolder) -> float:
    """The seconds of all sessions of a run, by the times of its events; the time between sessions does not count."""
    total, first, last = 0.0, 0.0, 0.0
    for event in run.events():
        now = float(event.get("time", last))
        if event["event"] in ("start", "resume") or not first:
            total, first = total + last - first, now
        last = now
    return total + last - first
