"""What was asked of inference beside what was measured, and the shares of what the machine's memory and products allow.

Of the formats of one model, both sides are judged by their fastest one at each length.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import verdicts
from verdicts import Rounds, Verdict

OURS, LLAMA_CPP, TRANSFORMERS, CTRANSLATE2 = "lmworks", "llama.cpp", "transformers", "ctranslate2"
DECODE = {
    "decode_16": "decode, 16-144 tokens of context",
    "decode_512": "decode at 512",
    "decode_2000": "decode at 2,000",
}
CONTEXT = {"decode_16": 80, "decode_512": 544, "decode_2000": 2032}
"""Tokens in the KV cache, on average over what is decoded."""
PREFILL = {"prefill_512": "prefill of 512", "prefill_2000": "prefill of 2,000"}
TOGETHER, ADAPTED, FIRST, PEAK = "together", "adapters", "first_token_s", "peak_mb"
CACHED_TOKENS = 2000 + 128  # of the peak of memory: the longest prompt, and the room that is made behind it
NOT_RUN = "lmworks did not run to its end"


@dataclass(frozen=True)
class Model:
    """What a step of one model reads and computes.

    Attributes:
        weight_bytes: of a token's weights, by arm: those of its file.
        cache_bytes: of the keys and values of a token.
        prefill_gflop: GFLOP a token of a prompt of 512, logits of the last token alone.
    """

    weight_bytes: Mapping[str, float] = field(default_factory=dict)
    cache_bytes: float = 0.0
    prefill_gflop: float = 0.0


def ours(rounds: Rounds) -> list[str]:
    """Names of our arms."""
    return of(rounds, OURS)


def of(rounds: Rounds, *engines: str) -> list[str]:
    """Names of the arms of these engines."""
    return [name for name in rounds if name.startswith(engines)]


def reading_share(rounds: Rounds, arm: str, key: str, model: Model, rates: Sequence[Mapping[str, float]]) -> float:
    """Percent of the machine's reading rate that decoding reaches: the median over rounds, each by its own rate.

    Args:
        rounds: the figures.
        arm, key: tokens per second of decoding.
        model: bytes.
        rates: of each round: GB/s by size of what is read again and again, as "reading 128" (MB).
    """
    size = model.weight_bytes[arm] + CONTEXT[key] * model.cache_bytes
    shares = [
        100 * figures[key] * size / (1e9 * rate_at(size, rate))
        for figures, rate in zip(rounds[arm], rates, strict=False)
    ]
    return statistics.median(shares)


def rate_at(size: float, rates: Mapping[str, float]) -> float:
    """GB/s of reading so many bytes again and again, between the measured sizes by their logarithms.

    Larger ones are read at the rate of the largest measured size.
    """
    points = sorted(
        (float(name.split()[1]) * 2**20, rate) for name, rate in rates.items() if name.startswith("reading")
    )
    for (small, fast), (large, slow) in itertools.pairwise(points):
        if size <= large:
            part = max(0.0, math.log(size / small) / math.log(large / small))
            return fast + part * (slow - fast)
    return points[-1][1]


def product_share(rounds: Rounds, arm: str, model: Model, rates: Sequence[Mapping[str, float]]) -> float:
    """Percent of the machine's fastest float products that reading a prompt of 512 reaches; integers may exceed it."""
    shares = [
        100 * figures["prefill_512"] * model.prefill_gflop / max(rate.get("float32", 0.0), rate.get("bfloat16", 0.0))
        for figures, rate in zip(rounds[arm], rates, strict=False)
    ]
    return statistics.median(shares)


def ahead(rounds: Rounds, key: str, name: str, peers: Sequence[str], asked: float) -> Verdict:
    """Our fastest arm beside the fastest of the peers by one figure."""
    mine, peer = (
        verdicts.best(rounds, arms, key) for arms in (_having(rounds, ours(rounds), key), _having(rounds, peers, key))
    )
    if mine is None or peer is None:
        why = NOT_RUN if mine is None else "no peer ran to its end"
        return Verdict(name, None, asked, why=why)
    return Verdict(f"{name}: {_format(mine)} beside {peer}", verdicts.ratio(rounds, mine, peer, key), asked)


def smollm2(
    rounds: Rounds, model: Model, rates: Sequence[Mapping[str, float]], likelihoods: Mapping[str, Mapping[str, float]]
) -> list[Verdict]:
    """All that is asked of SmolLM2.

    Args:
        rounds: the figures; arms are named by their engine first.
        model: bytes and GFLOP.
        rates: of the machine, of each round.
        likelihoods: of our arms, as inference_arms.likelihoods gives them.
    """
    llama_cpp = of(rounds, LLAMA_CPP)
    lines = [ahead(rounds, key, name, llama_cpp, 2.0) for key, name in DECODE.items()]
    lines.append(ahead(rounds, "prefill_512", PREFILL["prefill_512"], of(rounds, LLAMA_CPP, TRANSFORMERS), 2.2))
    chosen = [verdicts.best(rounds, _having(rounds, ours(rounds), key), key) for key in ("decode_16", "prefill_512")]
    apart = [distance(likelihoods[arm]) for arm in chosen if arm is not None and arm in likelihoods]
    name = "bits per byte from the file's own weights in float32"
    lines.append(_at_most(name, max(apart, default=None), 0.5, " %"))
    fastest = chosen[0]
    share = None if fastest is None else reading_share(rounds, fastest, "decode_16", model, rates)
    lines.append(_at_least("decode: share of the machine's reading rate", share, 70, " %"))
    lines.append(ahead(rounds, TOGETHER, "16 sequences at once, all tokens", llama_cpp, 2.0))
    lines.append(_adapters(rounds))
    over = None
    if fastest is not None:
        allowed = model.weight_bytes[fastest] + CACHED_TOKENS * model.cache_bytes
        over = verdicts.median(rounds, fastest, PEAK) - allowed / 1e6
    lines.append(_at_most("peak of memory beyond file and KV cache", over, 150, " MB"))
    lines.append(_first_token(rounds))
    return lines


def large(rounds: Rounds, model: Model, rates: Sequence[Mapping[str, float]]) -> list[Verdict]:
    """All that is asked of the model of 1.1 billion weights; arguments of :func:`smollm2`."""
    mine = verdicts.best(rounds, _having(rounds, ours(rounds), "decode_16"), "decode_16")
    share = None if mine is None else reading_share(rounds, mine, "decode_16", model, rates)
    return [
        _at_least("1.1 billion weights: share of the machine's reading rate", share, 85, " %"),
        ahead(rounds, "decode_16", "1.1 billion weights, decode", of(rounds, LLAMA_CPP), 1.15),
    ]


def ternary(rounds: Rounds) -> list[Verdict]:
    """What is asked of ternary weights beside 4 bits in the same shape; arms as of :func:`smollm2`."""
    mine, four_bits = (_having(rounds, [f"{OURS} {name}"], "decode_16") for name in ("TQ2_0", "Q4_0"))
    name = "ternary beside our own 4 bits, decode"
    if not (mine and four_bits):
        return [Verdict(name, None, 1.3, why=NOT_RUN)]
    lines = [Verdict(name, verdicts.ratio(rounds, *mine, *four_bits, "decode_16"), 1.3)]
    peers = of(rounds, f"{LLAMA_CPP} TQ2_0")
    if peer := verdicts.best(rounds, _having(rounds, peers, "decode_16"), "decode_16"):
        beside = verdicts.ratio(rounds, *mine, peer, "decode_16")
        lines.append(Verdict(f"ternary, decode: beside {peer}", beside, 1.0))
    return lines


def distance(bits: Mapping[str, float]) -> float:
    """Percent between the engine's bits per byte and those in float32, the larger of whole texts and single tokens."""
    pairs = (("chunks", "float32"), ("single", "single_float32"))
    return max(100 * abs(bits[engine] / bits[exact] - 1) for engine, exact in pairs)


def _adapters(rounds: Rounds) -> Verdict:
    """Percent of time that an adapter of its own for each sequence adds, of the arm that is fastest without."""
    arm = verdicts.best(rounds, _having(rounds, ours(rounds), ADAPTED), TOGETHER)
    name = "16 sequences, an adapter each: what that costs"
    if arm is None:
        return _at_most(name, None, 15, " %")
    costs = [100 * (figures[TOGETHER] / figures[ADAPTED] - 1) for figures in rounds[arm]]
    return _at_most(name, statistics.median(costs), 15, " %")


def _first_token(rounds: Rounds) -> Verdict:
    """Seconds from the shell to our first token, of the fastest arm."""
    arms = _having(rounds, ours(rounds), FIRST)
    seconds = min((verdicts.median(rounds, arm, FIRST) for arm in arms), default=None)
    others = [verdicts.median(rounds, arm, FIRST) for arm in _having(rounds, of(rounds, LLAMA_CPP), FIRST)]
    beside = f" (llama.cpp from Python: {min(others):.2f} s)" if others else ""
    return _at_most(f"from the shell to the first token{beside}", seconds, 0.7, " s")


def _having(rounds: Rounds, arms: Sequence[str], key: str) -> list[str]:
    """The arms that measured a figure in every round."""
    return [arm for arm in arms if rounds.get(arm) and all(key in figures for figures in rounds[arm])]


def _format(arm: str) -> str:
    """The format of the file that an arm of ours read."""
    return arm.removeprefix(OURS).strip()


def _at_least(name: str, measured: float | None, asked: float, unit: str) -> Verdict:
    return Verdict(name, measured, asked, unit=unit, why="" if measured is not None else NOT_RUN)


def _at_most(name: str, measured: float | None, asked: float, unit: str) -> Verdict:
    why = "" if measured is not None else NOT_RUN
    return Verdict(name, measured, asked, is_upper_bound=True, unit=unit, why=why)


def shares(rounds: Rounds, model: Model, rates: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """By arm that reads a file's blocks: percent of the reading rate at each length, and of the rate of products."""
    result: dict[str, dict[str, Any]] = {}
    for arm in of(rounds, OURS, LLAMA_CPP):
        if arm not in model.weight_bytes:
            continue
        keys = [key for key in DECODE if _having(rounds, [arm], key)]
        result[arm] = {key: reading_share(rounds, arm, key, model, rates) for key in keys}
        if _having(rounds, [arm], "prefill_512"):
            result[arm]["prefill_512"] = product_share(rounds, arm, model, rates)
    return result
