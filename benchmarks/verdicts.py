"""What was asked beside what was measured: medians, ratios within a round, and whether each is reached.

Knows how arms are named and what they tell of themselves, not how they run.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rounds = Mapping[str, Sequence[Mapping[str, Any]]]
"""Figures of every arm, round by round; an arm that does not run in every round runs in the first."""

SPEED, PEAK, LOSS = "tokens_per_second", "peak_gb", "mean_loss"
LAST = 5  # steps over which losses of two precisions are compared


@dataclass(frozen=True)
class Verdict:
    """A figure that was asked for.

    Attributes:
        name: of the figure, in words.
        measured: None: it was not, and ``why``.
        asked: the least, or the most where ``most``.
        unit: written behind both.
    """

    name: str
    measured: float | None
    asked: float
    most: bool = False
    unit: str = "x"
    why: str = ""

    @property
    def reached(self) -> bool | None:
        """None where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured <= self.asked if self.most else self.measured >= self.asked

    def line(self) -> str:
        """As it is printed."""
        asked = f"asked {'at most' if self.most else 'at least'} {self.asked:g}{self.unit}"
        if self.measured is None:
            return f"{self.name:<64} {'-':>8}   {asked:<22} not measured: {self.why}"
        outcome = "reached" if self.reached else "NOT REACHED"
        return f"{self.name:<64} {self.measured:7.2f}{self.unit:<3} {asked:<22} {outcome}"


def middle(rounds: Rounds, arm: str, key: str) -> float:
    """Median of a figure over an arm's rounds."""
    return statistics.median(figures[key] for figures in rounds[arm])


def ratio(rounds: Rounds, arm: str, other: str, key: str) -> float:
    """Median over the rounds of an arm's figure over another's in the same round."""
    return statistics.median(a[key] / b[key] for a, b in zip(rounds[arm], rounds[other], strict=False))


def best(rounds: Rounds, arms: Sequence[str]) -> str | None:
    """The fastest of the arms that ran in as many rounds as any of them; None where none ran."""
    most = max((len(rounds.get(arm, ())) for arm in arms), default=0)
    able = [arm for arm in arms if most and len(rounds.get(arm, ())) == most]
    return max(able, key=lambda arm: middle(rounds, arm, SPEED), default=None)


def far_behind(rounds: Rounds, arms: Sequence[str], share: float) -> list[str]:
    """Arms that reached less than this share of the fastest one's speed: they cannot become the best any more."""
    ran = [arm for arm in arms if rounds.get(arm)]
    fastest = max((middle(rounds, arm, SPEED) for arm in ran), default=0.0)
    return [arm for arm in ran if middle(rounds, arm, SPEED) < share * fastest]


def difference(rounds: Rounds, arm: str, other: str) -> float:
    """The greatest relative difference of two arms' losses, step by step, in the first round."""
    pairs = zip(rounds[arm][0]["losses"], rounds[other][0]["losses"], strict=True)
    return max(abs(a - b) / abs(b) for a, b in pairs)


def apart_at_end(rounds: Rounds, arm: str, other: str) -> float:
    """The relative difference of two arms' mean losses over the last steps, in the first round."""
    a, b = (statistics.mean(rounds[name][0]["losses"][-LAST:]) for name in (arm, other))
    return abs(a - b) / b


def compared(
    rounds: Rounds, ours: str, peers: Sequence[str], title: str, faster: float, smaller: float | None
) -> list[Verdict]:
    """Speed, and memory where that is asked, of one arm beside the best of the peers."""
    peer = best(rounds, peers)
    missing = "no peer ran to its end" if peer is None else "" if rounds.get(ours) else "lmworks did not run to its end"
    speed = None if missing or peer is None else ratio(rounds, ours, peer, SPEED)
    verdicts = [Verdict(f"{title}: tokens/s beside {peer or 'the best peer'}", speed, faster, why=missing)]
    if smaller is not None:
        peak = None if missing or peer is None else ratio(rounds, ours, peer, PEAK)
        verdicts.append(Verdict(f"{title}: peak memory beside it", peak, smaller, most=True, why=missing))
    return verdicts


def lora(
    rounds: Rounds, peers: Sequence[str], rates: Sequence[Mapping[str, float]], has_bfloat16: bool
) -> list[Verdict]:
    """All that was asked of LoRA.

    Args:
        rounds: the figures; lmworks' arms are "lmworks float32" and "lmworks bfloat16".
        peers: names of theirs.
        rates: GFLOP/s of matrix products, by precision, measured between the rounds.
        has_bfloat16: whether bfloat16 products were measured to be faster than float32 ones.
    """
    float32, bfloat16 = "lmworks float32", "lmworks bfloat16"
    speed, peak = compared(rounds, float32, peers, "LoRA float32", 1.7, 0.25)
    ran = bool(rounds.get(float32))
    why = "" if ran else "lmworks did not run to its end"
    share = 100 * middle(rounds, float32, "gflops") / rate_of(rates, "float32") if ran else None
    gigabytes = middle(rounds, float32, PEAK) if ran else None
    verdicts = [speed, Verdict("LoRA float32: share of the float32 ceiling", share, 75, unit=" %", why=why)]
    verdicts += [peak, Verdict("LoRA float32: peak memory", gigabytes, 1.6, most=True, unit=" GB", why=why)]
    none = "bfloat16 products are not faster than float32 here"
    if not has_bfloat16:
        return [*verdicts, Verdict("LoRA bfloat16: tokens/s beside the best peer", None, 3.0, why=none)]
    verdicts += compared(rounds, bfloat16, peers, "LoRA bfloat16", 3.0, None)
    both = bool(rounds.get(bfloat16)) and ran
    apart = 100 * apart_at_end(rounds, bfloat16, float32) if both else None
    name = f"LoRA bfloat16: mean loss of the last {LAST} steps from float32's"
    return [*verdicts, Verdict(name, apart, 1.0, most=True, unit=" %", why="" if both else "an arm is missing")]


def rate_of(rates: Sequence[Mapping[str, float]], precision: str) -> float:
    """Median of the measured rates."""
    return statistics.median(rate[precision] for rate in rates)
