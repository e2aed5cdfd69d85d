"""How the time of a comparison is divided: the length of each contender's training and search. Pure functions.

Everything is decided before anything is trained, from measured times, so that a comparison that was killed goes on to
the same table. A contender's search is successive halving (Jamieson and Talwalkar 2016): all learning rates for a
quarter of the full length, the better half of them for half of it, the best one for all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, duration, list_names

SHARES = (0.25, 0.5, 1.0)
"""Of the full length, in the rounds of a search."""
MIN_STEPS = 16
"""Of the shortest training of a contender, a search's included; with fewer, there is no search, and all time goes into
the final runs."""
MOST_NAMED = 3
"""Contenders that the hint of a budget too small names, those that need the most time besides training."""
LEARNING_RATE_FACTOR = 3.0
"""Between neighbouring learning rates of a search."""


@dataclass(frozen=True)
class RunTimes:
    """The times of a contender's runs, in seconds.

    Attributes:
        start: until a run trains.
        epoch: of training.
        steps: of an epoch.
        validation, test: of an evaluation on that part.
        measuring: what is measured of the result besides.
        most_epochs: beyond which its training is not to go.
    """

    start: float
    epoch: float = 0.0
    steps: float = 1.0
    validation: float = 0.0
    test: float = 0.0
    measuring: float = 0.0
    most_epochs: float = 0.0

    def fixed(self, runs: Sequence[int], seeds: int) -> float:
        """Seconds of all but training.

        Args:
            runs: of the search, in each of its rounds.
            seeds: final runs.
        """
        return sum(runs) * (self.start + self.validation) + seeds * (self.start + self.test) + self.measuring

    def training(self, runs: Sequence[int], seeds: int) -> float:
        """Seconds of training for each epoch of the full length."""
        lengths = sum(count * share for count, share in zip(runs, SHARES, strict=False))
        return self.epoch * (lengths + seeds)


@dataclass(frozen=True)
class Length:
    """What a contender is given.

    Attributes:
        epochs: its full length; 0 where nothing is trained by steps.
        searches: whether learning rates are searched.
        seconds: that it is planned to take.
    """

    epochs: float
    searches: bool
    seconds: float


@dataclass(frozen=True)
class Planned:
    """A contender that is trained, before it begins.

    Attributes:
        epochs: its full length.
        steps: of an epoch.
        training: seconds for each epoch of the full length, of all its runs.
        rest: seconds of all else.
    """

    epochs: float
    steps: float
    training: float
    rest: float

    @property
    def least(self) -> float:
        """The epochs of its fewest steps."""
        return min(self.epochs, MIN_STEPS / self.steps)

    @property
    def needed(self) -> float:
        """Seconds of its fewest steps and of all else."""
        return self.rest + self.least * self.training


def rounds(rates: int) -> list[int]:
    """The runs of each round of a search that begins with so many learning rates; none with a single one."""
    return [] if rates < 2 else [max(1, math.ceil(rates / 2**number)) for number in range(len(SHARES) - 1)] + [1]


def learning_rates(default: float, count: int) -> list[float]:
    """Learning rates around a default, neighbours :data:`LEARNING_RATE_FACTOR` times apart: the default first, then
    smaller and larger ones in turn."""
    steps = [(number + 1) // 2 * (1 if number % 2 == 0 else -1) for number in range(count)]
    return [float(f"{default * LEARNING_RATE_FACTOR**step:.3g}") for step in steps]


def divide(
    times: dict[str, RunTimes],
    budget: float,
    rates: int,
    seeds: int,
    spent: float = 0.0,
    cheaper: Sequence[str] = (),
) -> dict[str, Length]:
    """Divide seconds among contenders: equal times, but none more than its most epochs take, and none less than
    :data:`MIN_STEPS` steps take, so that a slow one does not decide how long all of them need.

    Args:
        times: by name of the contender.
        budget: seconds for all of them.
        rates: learning rates that a search begins with.
        seeds: final runs of each.
        spent: seconds that planning took before, for an error: the hint adds them to the budget that is needed.
        cheaper: options with which contenders need less time besides their training, for that hint.

    Raises:
        InputError: they are too few for :data:`MIN_STEPS` steps of each.
    """
    runs = {name: rounds(rates) if run_times.epoch else [] for name, run_times in times.items()}
    while True:
        share = _share(times, runs, budget, seeds)
        lengths = {name: _length(run_times, runs[name], seeds, share) for name, run_times in times.items()}
        short = [
            name
            for name, run_times in times.items()
            if runs[name] and lengths[name].epochs * run_times.steps * SHARES[0] < MIN_STEPS
        ]
        exceeded = sum(length.seconds for length in lengths.values()) > budget
        if not short and exceeded:
            short = [name for name in times if runs[name]]  # their searches take what others need
        if not short:
            break
        # the slowest one first: the others may have time enough for a search then
        worst = max(short, key=lambda name: times[name].epoch / times[name].steps)
        runs[worst] = []
    if exceeded:
        _refuse_too_little(times, budget, seeds, spent, cheaper)
    return lengths


def shorten(planned: dict[str, Planned], seconds: float) -> dict[str, float]:
    """Fit the contenders to come into less time than they were planned for.

    The one that needs the most time is left out first, until the fewest steps of each of the others fit; what remains
    is divided in proportion to what their planned lengths take beyond.

    Args:
        planned: by name.
        seconds: for all of them.

    Returns:
        The epochs of each that is not left out; there may be time for one that is, when the others are done.
    """
    kept = dict(planned)
    while kept and sum(contender.needed for contender in kept.values()) > seconds:
        del kept[max(kept, key=lambda name: kept[name].needed)]
    beyond = sum((contender.epochs - contender.least) * contender.training for contender in kept.values())
    left = seconds - sum(contender.needed for contender in kept.values())
    ratio = min(1.0, left / beyond) if beyond else 0.0
    return {name: one.least + ratio * (one.epochs - one.least) for name, one in kept.items()}


def _length(run_times: RunTimes, runs: Sequence[int], seeds: int, share: float) -> Length:
    """The length that so many seconds allow, and at least :data:`MIN_STEPS` steps."""
    epochs, fixed, training = 0.0, run_times.fixed(runs, seeds), run_times.training(runs, seeds)
    if training:
        epochs = min(run_times.most_epochs, max(MIN_STEPS / run_times.steps, (share - fixed) / training))
    return Length(epochs, bool(runs), fixed + epochs * training)


def _share(times: dict[str, RunTimes], runs: dict[str, list[int]], budget: float, seeds: int) -> float:
    """The seconds of each contender with which all of them together take the budget, found by halving an interval; 0
    where the budget is too small."""
    low, high = 0.0, budget
    for _ in range(60):
        middle = (low + high) / 2
        spent = sum(_length(run_times, runs[name], seeds, middle).seconds for name, run_times in times.items())
        low, high = (middle, high) if spent <= budget else (low, middle)
    return low


def _refuse_too_little(
    times: dict[str, RunTimes], budget: float, seeds: int, spent: float, cheaper: Sequence[str]
) -> NoReturn:
    """Raise since there are contenders that have no time for their fewest steps."""
    needed = {name: _length(run_times, [], seeds, 0.0).seconds for name, run_times in times.items()}
    steps = f"{MIN_STEPS} steps of each of {count_of(len(times), 'contender')}"
    planning = f" and planning, which took {duration(spent)}" if spent else ""
    fault = f"{duration(budget + spent)} are too little for {steps}{planning}"
    hint = f"--budget {math.ceil((sum(needed.values()) + spent) / 60) + 1}m"
    if fitting := _fitting(times, needed, budget):
        hint += f", or fewer contenders: --methods {','.join(fitting)}"
    fixed = {name: run_times.fixed([], seeds) for name, run_times in times.items()}
    slowest = sorted(fixed, key=lambda name: -fixed[name])[:MOST_NAMED]
    hint += (
        f"; besides training most time goes to {list_names([f'{name} {duration(fixed[name])}' for name in slowest])}"
    )
    if cheaper:
        hint += f": less with {list_names(list(cheaper))}"
    raise InputError(fault, "budget", hint)


def _fitting(times: dict[str, RunTimes], needed: dict[str, float], budget: float) -> list[str]:
    """As many contenders as a budget is enough for, the fastest ones, one that is trained among them; else none."""
    fitting: list[str] = []
    for name in sorted(times, key=lambda name: needed[name]):
        if sum(needed[other] for other in fitting) + needed[name] <= budget:
            fitting.append(name)
    return [name for name in times if name in fitting] if any(times[name].epoch for name in fitting) else []
