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
IDLE = 1.25
"""Where another provider multiplies float32 so many times as fast as PyTorch's default, PyTorch leaves much idle."""
MATRIX_UNITS = 3.0
"""Bfloat16 products so many times as fast as float32's: the processor has units for them."""
PEAK_GB = 1.6
QLORA = "lmworks QLoRA float32"  # an arm, over a base in NF4
QLORA_PEAK, QLORA_SPEED = 0.6, 0.7  # of LoRA's in float32
PYTORCH_FLOAT32 = "float32 by pytorch"
LAST = 5  # steps over which losses of two precisions are compared


@dataclass(frozen=True)
class Verdict:
    """A figure that was asked for.

    Attributes:
        name: of the figure, in words.
        measured: None: it was not, and ``why``.
        asked: the bound that was asked for.
        is_upper_bound: whether the figure may be at most that; else it must be at least that.
        unit: written behind both.
    """

    name: str
    measured: float | None
    asked: float
    is_upper_bound: bool = False
    unit: str = "x"
    why: str = ""

    @property
    def reached(self) -> bool | None:
        """None where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured <= self.asked if self.is_upper_bound else self.measured >= self.asked

    def line(self) -> str:
        """As it is printed."""
        asked = f"asked {'at most' if self.is_upper_bound else 'at least'} {self.asked:g}{self.unit}"
        if self.measured is None:
            return f"{self.name:<64} {'-':>8}   {asked:<22} not measured: {self.why}"
        outcome = "reached" if self.reached else "NOT REACHED"
        return f"{self.name:<64} {self.measured:7.2f}{self.unit:<3} {asked:<22} {outcome}"


def median(rounds: Rounds, arm: str, key: str) -> float:
    """Median of a figure over an arm's rounds."""
    return statistics.median(figures[key] for figures in rounds[arm])


def ratio(rounds: Rounds, arm: str, other: str, key: str) -> float:
    """Median over the rounds of an arm's figure over another's in the same round."""
    return statistics.median(a[key] / b[key] for a, b in zip(rounds[arm], rounds[other], strict=False))


def best(rounds: Rounds, arms: Sequence[str], key: str = SPEED) -> str | None:
    """The arm of the highest figure among those that ran in as many rounds as any of them; None where none ran."""
    max_rounds = max((len(rounds.get(arm, ())) for arm in arms), default=0)
    able = [arm for arm in arms if max_rounds and len(rounds.get(arm, ())) == max_rounds]
    return max(able, key=lambda arm: median(rounds, arm, key), default=None)


def far_behind(rounds: Rounds, arms: Sequence[str], share: float) -> list[str]:
    """Arms that reached less than this share of the fastest one's speed: they cannot become the best any more."""
    ran = [arm for arm in arms if rounds.get(arm)]
    fastest = max((median(rounds, arm, SPEED) for arm in ran), default=0.0)
    return [arm for arm in ran if median(rounds, arm, SPEED) < share * fastest]


def difference(rounds: Rounds, arm: str, other: str) -> float:
    """The greatest relative difference of two arms' losses, step by step, in the first round."""
    pairs = zip(rounds[arm][0]["losses"], rounds[other][0]["losses"], strict=True)
    return max(abs(a - b) / abs(b) for a, b in pairs)


def apart_at_end(rounds: Rounds, arm: str, other: str) -> float:
    """The relative difference of two arms' mean losses over the last steps, in the first round."""
    a, b = (statistics.mean(rounds[name][0]["losses"][-LAST:]) for name in (arm, other))
    return abs(a - b) / b


def compared(rounds: Rounds, ours: str, peers: Sequence[str], title: str, faster: float) -> list[Verdict]:
    """Speed of one arm beside the best of the peers."""
    peer = best(rounds, peers)
    missing = "no peer ran to its end" if peer is None else "" if rounds.get(ours) else "lmworks did not run to its end"
    speed = None if missing or peer is None else ratio(rounds, ours, peer, SPEED)
    return [Verdict(f"{title}: tokens/s beside {peer or 'the best peer'}", speed, faster, why=missing)]


@dataclass(frozen=True)
class Targets:
    """What is asked on a machine: times the best peer's tokens/s, and percent of what products alone would allow.

    Attributes:
        float32: of LoRA beside the best float32 peer. best: in the machine's best precision beside the best of all.
        full, scratch: of full fine-tuning and of training from scratch, beside the best of all.
        share: percent by precision; not asked where it is not named.
    """

    float32: float
    best: float
    full: float
    scratch: float
    share: Mapping[str, float]


def targets(rates: Sequence[Mapping[str, float]], has_bfloat16: bool) -> Targets:
    """By how far PyTorch's default, which all peers multiply with, is from the best provider.

    Args:
        rates: as :func:`lora` takes them.
        has_bfloat16: whether bfloat16 products were measured to be faster than float32 ones.
    """
    float32 = rate_of(rates, "float32")
    if float32 < IDLE * rate_of(rates, PYTORCH_FLOAT32):
        has_units = has_bfloat16 and rate_of(rates, "bfloat16") >= MATRIX_UNITS * float32
        return Targets(1.45, 3.0 if has_units else 1.45, 1.7, 1.75, {"float32": 85})
    return Targets(2.5 if has_bfloat16 else 1.8, 3.2, 2.5, 2.5, {"float32": 75, "bfloat16": 70})


def precisions(has_bfloat16: bool) -> list[str]:
    """The precisions that are compared."""
    return ["float32", "bfloat16"] if has_bfloat16 else ["float32"]


def lora(
    rounds: Rounds, peers: Sequence[str], rates: Sequence[Mapping[str, float]], has_bfloat16: bool
) -> list[Verdict]:
    """All that is asked of LoRA.

    Args:
        rounds: the figures; lmworks' arms are "lmworks float32" and "lmworks bfloat16".
        peers: names of theirs.
        rates: GFLOP/s of matrix products, measured between the rounds: by precision those of the best provider, and
            PyTorch's default in float32 as :data:`PYTORCH_FLOAT32`.
        has_bfloat16: whether bfloat16 products were measured to be faster than float32 ones.
    """
    asked = targets(rates, has_bfloat16)
    *_, fastest = precisions(has_bfloat16)
    in_float32 = [peer for peer in peers if "float32" in peer]
    verdicts = compared(rounds, "lmworks float32", in_float32, "LoRA float32", asked.float32)
    verdicts += compared(rounds, f"lmworks {fastest}", peers, f"LoRA {fastest}", asked.best)
    for precision in precisions(has_bfloat16):
        arm = f"lmworks {precision}"
        why = "" if rounds.get(arm) else "lmworks did not run to its end"
        if precision in asked.share:
            share = None if why else 100 * median(rounds, arm, "gflops") / rate_of(rates, precision)
            name = f"LoRA {precision}: share of the machine's limit"
            verdicts.append(Verdict(name, share, asked.share[precision], unit=" %", why=why))
        gigabytes = None if why else median(rounds, arm, PEAK)
        verdicts.append(
            Verdict(f"LoRA {precision}: peak memory", gigabytes, PEAK_GB, is_upper_bound=True, unit=" GB", why=why)
        )
    verdicts += qlora(rounds)
    if not has_bfloat16:
        return verdicts
    both = bool(rounds.get("lmworks bfloat16")) and bool(rounds.get("lmworks float32"))
    apart = 100 * apart_at_end(rounds, "lmworks bfloat16", "lmworks float32") if both else None
    name = f"LoRA bfloat16: mean loss of the last {LAST} steps from float32's"
    return [
        *verdicts,
        Verdict(name, apart, 1.0, is_upper_bound=True, unit=" %", why="" if both else "an arm is missing"),
    ]


def qlora(rounds: Rounds) -> list[Verdict]:
    """What is asked of QLoRA beside LoRA, both in float32."""
    why = "" if rounds.get(QLORA) and rounds.get("lmworks float32") else "an arm is missing"
    peak, speed = (None if why else ratio(rounds, QLORA, "lmworks float32", key) for key in (PEAK, SPEED))
    return [
        Verdict("QLoRA float32: peak memory beside LoRA's", peak, QLORA_PEAK, is_upper_bound=True, why=why),
        Verdict("QLoRA float32: tokens/s beside LoRA's", speed, QLORA_SPEED, why=why),
    ]


def rate_of(rates: Sequence[Mapping[str, float]], precision: str) -> float:
    """Median of the measured rates."""
    return statistics.median(rate[precision] for rate in rates)
