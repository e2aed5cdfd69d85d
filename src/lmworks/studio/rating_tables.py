"""What a blind test came to, as the page reads it: plain JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lmworks.ratings.outcome import Outcome, PairResult
from lmworks.ratings.outcome_warnings import warnings_of


def outcome_tables(outcome: Outcome) -> dict[str, Any]:
    """The tables of an outcome.

    Returns:
        warnings (sentences), progress, raters (prompts by name), strengths (name, value, low, high; or null), pairs
        (first, second, wins, losses, ties, rate, low, high, p_value, adjusted_p_value), first_shown (chosen, ratings,
        expected, is_biased; or null), agreement (by what was rated: alpha, low, high, units, values; or null) and
        scores (by criterion: the contenders of evaluate/significance, the best first).
    """
    first = outcome.first_shown
    return {
        "warnings": warnings_of(outcome),
        "progress": asdict(outcome.progress),
        "raters": outcome.raters,
        "strengths": None if outcome.strengths is None else [asdict(strength) for strength in outcome.strengths],
        "pairs": [_pair(pair) for pair in outcome.pairs],
        "first_shown": None if first is None else {**asdict(first), "is_biased": first.is_biased},
        "agreement": {name: None if alpha is None else asdict(alpha) for name, alpha in outcome.agreement.items()},
        "scores": {
            criterion: [asdict(contender) for contender in table.contenders]
            for criterion, table in outcome.scores.items()
        },
    }


def _pair(pair: PairResult) -> dict[str, Any]:
    low, high = pair.wins.interval()
    return {
        "first": pair.first,
        "second": pair.second,
        **asdict(pair.wins),
        "rate": pair.wins.rate,
        "low": low,
        "high": high,
        "p_value": pair.wins.p_value,
        "adjusted_p_value": pair.adjusted_p_value,
    }
