"""Win rates of two models by prompt: exact tests and exact intervals.

A prompt counts once, for the model that more of its raters preferred: raters of the same prompt are not independent of
each other. Prompts on which neither was preferred are left out of the rate and of the test, as in the sign test
(Dixon & Mood 1946), whose p-value is the binomial distribution's.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmworks.evaluate.significance import mcnemar


@dataclass(frozen=True)
class WinRate:
    """One model against another.

    Attributes:
        wins, losses: prompts on which the first, or the second, was preferred.
        ties: prompts on which neither was, and both were compared.
    """

    wins: int
    losses: int
    ties: int = 0

    @property
    def decided(self) -> int:
        """Prompts on which one was preferred."""
        return self.wins + self.losses

    @property
    def rate(self) -> float | None:
        """Share of the wins among these; None where there are none."""
        return self.wins / self.decided if self.decided else None

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the exact binomial test of a rate of one half."""
        return mcnemar(self.wins, self.losses)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The exact interval of the rate."""
        return clopper_pearson(self.wins, self.decided, level)


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The ends of the exact interval of a binomial share (Clopper & Pearson 1934).

    Args:
        successes, trials: counts; of no trial the interval is [0, 1].
        level: the interval holds the true share with at least this probability.

    Raises:
        ValueError: more successes than trials, or a negative count.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    from scipy.special import betaincinv  # half a second, which most commands need not spend

    tail = (1 - level) / 2
    low = float(betaincinv(successes, trials - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return low, high
