"""How the time of a comparison is divided: the length of each contender's training and search. Pure functions.

Everything is decided before anything is trained, from measured times, so that a comparison that was killed goes on to
the same table. A contender's search is successive halving (Jamieson and Talwalkar 2016): all learning rates for a
quarter of the full length, the better half of them for half of it, the best one for all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, duration

SHARES = (0.25, 0.5, 1.0)
"""Of the full length, in the rounds of a search."""
MIN_SEARCH_STEPS = 16
"""Of the shortest training of a search; with fewer, there is no search, and all time goes into the final runs."""
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


def rounds(rates: int) -> list[int]:
    """The runs of each round of a search that begins with so many learning rates; none with a single one."""
    return [] if rates < 2 else [max(1, math.ceil(rates / 2**number)) for number in range(len(SHARES) - 1)] + [1]


def learning_rates(default: float, count: int) -> list[float]:
    """Learning rates around a default, neighbours :data:`LEARNING_RATE_FACTOR` times apart: the default first, then
    smaller and larger ones in turn."""
    steps = [(number + 1) // 2 * (1 if number % 2 == 0 else -1) for number in range(count)]
    return [float(f"{default * LEARNING_RATE_FACTOR**step:.3g}") for step in steps]


def divide(times: dict[str, RunTimes], budget: float, rates: int, seeds: int, spent: float = 0.0) -> dict[str, Length]:
    """Divide seconds among contenders: equal times, but none more than its most epochs take.

    Args:
        times: by name of the contender.
        budget: seconds for all of them.
        rates: learning rates that a search begins with.
        seeds: final runs of each.
        spent: seconds that planning took, which the hint of an error adds to the budget that is needed.

    Raises:
        InputError: they are too few for a step of each.
    """
    runs = {name: rounds(rates) if run_times.epoch else [] for name, run_times in times.items()}
    while True:
        share = _share(times, runs, budget, seeds)
        epochs = {name: _epochs(run_times, runs[name], seeds, share) for name, run_times in times.items()}
        short = [
            name
            for name, run_times in times.items()
            if runs[name] and epochs[name] * run_times.steps * SHARES[0] < MIN_SEARCH_STEPS
        ]
        if not short and _has_no_step(times, epochs):
            short = [name for name in times if runs[name]]  # their searches leave another one without a step
        if not short:
            break
        # the slowest one first: the others may have time enough for a search then
        worst = max(short, key=lambda name: times[name].epoch / times[name].steps)
        runs[worst] = []
    _refuse_too_little(times, epochs, budget, seeds, spent)
    return {
        name: Length(
            epochs[name],
            bool(runs[name]),
            run_times.fixed(runs[name], seeds) + epochs[name] * run_times.training(runs[name], seeds),
        )
        for name, run_times in times.items()
    }


def _has_no_step(times: dict[str, RunTimes], epochs: dict[str, float]) -> bool:
    """Whether a contender that is trained gets less than a step."""
    return any(run_times.epoch and epochs[name] * run_times.steps < 1 for name, run_times in times.items())


def _epochs(run_times: RunTimes, runs: Sequence[int], seeds: int, share: float) -> float:
    """The full length that so many seconds allow."""
    if not run_times.epoch:
        return 0.0
    return min(
        run_times.most_epochs, max(0.0, (share - run_times.fixed(runs, seeds)) / run_times.training(runs, seeds))
    )


def _share(times: dict[str, RunTimes], runs: dict[str, list[int]], budget: float, seeds: int) -> float:
    """The seconds of each contender with which all of them together take the budget; found by halving an interval."""
    low, high = 0.0, budget
    for _ in range(60):
        middle = (low + high) / 2
        spent = sum(
            run_times.fixed(runs[name], seeds)
            + _epochs(run_times, runs[name], seeds, middle) * run_times.training(runs[name], seeds)
            for name, run_times in times.items()
        )
        low, high = (middle, high) if spent <= budget else (low, middle)
    return low


def _refuse_too_little(
    times: dict[str, RunTimes], epochs: dict[str, float], budget: float, seeds: int, spent: float
) -> None:
    """Raise if a contender has no time for a step."""
    if not _has_no_step(times, epochs):
        return
    needed = _needed(times, seeds)
    fault = f"{duration(budget)} are too little for a step of each of {count_of(len(times), 'contender')}"
    hint = f"--budget {math.ceil((needed + spent) / 60) + 1}m, for {MIN_SEARCH_STEPS} steps of each"
    if fitting := _fitting(times, budget, seeds):
        hint += f", or fewer contenders: --methods {','.join(fitting)}"
    raise InputError(fault, "budget", hint)


def _needed(times: dict[str, RunTimes], seeds: int) -> float:
    """Seconds that give each contender which is trained its fewest steps, without searches: contenders get equal times,
    so that the slowest one decides, as in divide() with its time as the share."""
    share = max(
        (
            run_times.fixed([], seeds) + MIN_SEARCH_STEPS * run_times.training([], seeds) / run_times.steps
            for run_times in times.values()
            if run_times.epoch
        ),
        default=0.0,
    )
    return sum(
        run_times.fixed([], seeds) + _epochs(run_times, [], seeds, share) * run_times.training([], seeds)
        for run_times in times.values()
    )


def _fitting(times: dict[str, RunTimes], budget: float, seeds: int) -> list[str]:
    """As many contenders as a budget is enough for, the fastest ones, one that is trained among them; else none."""
    order = sorted(times, key=lambda name: _needed({name: times[name]}, seeds))
    fitting: list[str] = []
    for name in order:
        if _needed({other: times[other] for other in [*fitting, name]}, seeds) <= budget:
            fitting.append(name)
    return [name for name in times if name in fitting] if any(times[name].epoch for name in fitting) else []
