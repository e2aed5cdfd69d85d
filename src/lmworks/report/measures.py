"""The card's figures: two evaluations of the same rows, what changed, and whether that is more than chance.

No verdict is given that was not measured: "better" or "worse" stands only where the paired bootstrap interval over the
same rows excludes zero.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from lmworks.evaluate import metrics

LEVEL = 0.95
FEWEST_ROWS = 6  # with five, even five changes of one sign are chance more often than once in twenty (2 / 2^5)
MOST = 700.0  # nats whose exponential a number still holds
HOW = (
    f"Intervals: {100 * LEVEL:g} % bootstrap over rows; changes in pairs over the same rows. "
    "Better or worse is said only where the interval of the change excludes zero."
)
Event = dict[str, Any]


class _Figure(NamedTuple):
    """A figure of an evaluation: its key and title, the part of the event that has it, its name there, its numerators
    and denominators by row, and its unit."""

    key: str
    title: str
    part: str
    name: str
    tops: str
    bottoms: str
    unit: str
    better: str = "lower"


_LOSS = _Figure(
    "held_out_loss", "Loss on held-out rows", "held_out", "loss", "row_nats", "row_tokens", "nats per token"
)
_ACCURACY = _Figure(
    "held_out_accuracy", "Tokens guessed right", "held_out", "accuracy", "row_correct", "row_tokens", "share", "higher"
)
_BITS = _Figure(
    "held_out_bits", "The same for any tokenizer", "held_out", "bits_per_byte", "row_bits", "row_bytes", "bits per byte"
)
_GENERAL = _Figure(
    "general_bits",
    "Forgetting: a text never tuned on",
    "general",
    "bits_per_byte",
    "row_bits",
    "row_bytes",
    "bits per byte",
)
_HEAD_ACCURACY = "_accuracy"  # what the journal's figures of a classification head end with (evaluate/scoring)


def measures(before: Event, after: Event, scratch: bool = False) -> list[dict[str, Any]]:
    """The figures of two evaluations, the change of each and the verdict that its rows allow.

    Args:
        before, after: ``evaluation`` events; {} where there is none.
        scratch: whether the model is trained from scratch: perplexity and accuracy stand beside the loss.
    """
    found = []
    heads = _heads(before.get("held_out") or after.get("held_out") or {})
    for figure in (_LOSS, _ACCURACY, *heads, _BITS) if scratch else (_LOSS, *heads, _BITS, _GENERAL):
        old, new = before.get(figure.part) or {}, after.get(figure.part) or {}
        if figure.name not in old and figure.name not in new:
            continue
        sides = [_rows(side, figure.tops, figure.bottoms) for side in (old, new)]
        values = (old.get(figure.name), new.get(figure.name))
        measure = _measure(*values, sides[0], sides[1], better=figure.better)
        detail = old.get("name") or new.get("name") or ""
        found.append({"key": figure.key, "title": figure.title, "unit": figure.unit, "detail": detail, **measure})
        if scratch and figure is _LOSS:
            found.append(_perplexity(measure))
    old, new = before.get("task") or {}, after.get("task") or {}
    if old or new:
        found.insert(0, _task(old, new))
    return found


def _heads(figures: dict[str, Any]) -> list[_Figure]:
    """The accuracy of each classification head that was measured."""
    names = [name for name in figures if name.endswith(_HEAD_ACCURACY)]
    titles = [name.removesuffix(_HEAD_ACCURACY).replace("_", " ").capitalize() for name in names]
    return [
        _Figure(name, f"{title}: accuracy", "held_out", name, "", "", "share", "higher")
        for name, title in zip(names, titles, strict=True)
    ]


def _perplexity(loss: dict[str, Any]) -> dict[str, Any]:
    """exp of the loss, with the loss's own interval ends and verdict: the same measurement in other words."""
    sides = {side: _exponential(loss[side]) for side in ("before", "after")}
    old, new = (sides[side]["value"] for side in ("before", "after"))
    change = None
    if old is not None and new is not None:
        change = {"value": new - old, "interval": None, "percent": 100 * (new - old) / old}
    head = {"key": "held_out_perplexity", "title": "Perplexity", "unit": "tokens to choose among", "detail": ""}
    return {**head, **loss, **sides, "change": change}


def _exponential(side: dict[str, Any]) -> dict[str, Any]:
    ends = side["interval"]
    return {
        "value": _exp(side["value"]),
        "interval": None if ends is None else [_exp(end) for end in ends],
    }


def _exp(value: float | None) -> float | None:
    return None if value is None or not value < MOST else math.exp(value)


def _task(old: Event, new: Event) -> dict[str, Any]:
    said = new or old
    signatures = {side["signature"] for side in (old, new) if side.get("signature")}
    sides = [_values(side) for side in (old, new)]
    if len(signatures) > 1:  # two numbers that mean different things have no difference
        sides = [None, None]
    measure = _measure(old.get("value"), new.get("value"), sides[0], sides[1], better="higher")
    for name, side in (("before", old), ("after", new)):
        if measure[name]["interval"] is None and side.get("interval"):
            measure[name]["interval"] = list(side["interval"])
    if len(signatures) > 1:
        measure["change"], measure["verdict"] = None, "measured in two ways: no comparison"
    rows = said.get("n") or measure["rows"]
    head = {"key": "task", "title": said.get("metric", "task"), "unit": "", "detail": " / ".join(sorted(signatures))}
    return {**head, **measure, "rows": rows}


def _values(side: Event) -> tuple[list[float], list[float]] | None:
    values = side.get("values")
    return (values, [1.0] * len(values)) if values else None


def _rows(side: Event, tops: str, bottoms: str) -> tuple[list[float], list[float]] | None:
    """Numerators and denominators of each row, where the journal has them (bits follow from nats)."""
    values, weights = side.get(tops), side.get(bottoms)
    if values is None and tops == "row_bits" and side.get("row_nats"):
        values = [nats / math.log(2) for nats in side["row_nats"]]
    return (values, weights) if values and weights and len(values) == len(weights) else None


def _measure(
    old: float | None,
    new: float | None,
    before: tuple[list[float], list[float]] | None,
    after: tuple[list[float], list[float]] | None,
    better: str,
) -> dict[str, Any]:
    """One figure on both sides, its change, and the verdict that the rows allow."""
    change: dict[str, Any] | None = None
    verdict = None
    if old is not None and new is not None:
        change = {"value": new - old, "interval": None, "percent": 100 * (new - old) / old if old else None}
        verdict = "not tested: no figures by row"
        # pairs need the same rows: as many, and weighing the same
        if before and after and before[1] == after[1]:
            if len(before[0]) < FEWEST_ROWS:
                verdict = f"not tested: too few rows ({len(before[0])})"
            else:
                pairs = metrics.paired_difference(before[0], after[0], level=LEVEL, weights=before[1])
                change["interval"] = [pairs.low, pairs.high]
                verdict = "no difference measured"
                if pairs.excludes_zero:
                    verdict = "better" if (pairs.value < 0) == (better == "lower") else "worse"
    return {
        "better": better,
        "before": _side(old, before),
        "after": _side(new, after),
        "change": change,
        "verdict": verdict,
        "rows": len((after or before)[0]) if after or before else None,  # type: ignore[index]
    }


def _side(value: float | None, rows: tuple[list[float], list[float]] | None) -> dict[str, Any]:
    interval = None
    if rows and value is not None and len(rows[0]) >= FEWEST_ROWS:
        found = metrics.bootstrap_interval(rows[0], level=LEVEL, weights=rows[1])
        interval = [found.low, found.high]
    return {"value": value, "interval": interval}
