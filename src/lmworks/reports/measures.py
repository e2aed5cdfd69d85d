"""The card's figures: two evaluations of the same rows, what changed, and whether that is more than chance.

No verdict is given that was not measured: "better" or "worse" stands only where the paired bootstrap interval over the
same rows excludes zero, and where the change is large enough to matter.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from lmworks.base import figures
from lmworks.evaluate import metrics
from lmworks.evaluate.metrics import FEWEST_ROWS
from lmworks.tasks.figures import (
    ACCURACY,
    ANSWERS,
    BITS,
    CLASS_ACCURACY,
    CLASSIFICATION,
    ENTITIES,
    GENERAL_BITS,
    GENERAL_LOSS,
    LOSS,
    PERPLEXITY,
    Figure,
)
from lmworks.tasks.registry import TASKS

LEVEL = 0.95
MAX_NATS = 700.0  # nats whose exponential a number still holds
NEGLIGIBLE = 2**-8
"""Relative change below which a difference is negligible, however surely it was measured.

It is the rounding error of a bfloat16 number (8 significant bits): a figure that moves by less moved by less than it
does when it is stored in half the bytes, and nobody should prefer one model to another for it.
"""
HOW = (
    f"Intervals: {100 * LEVEL:g} % bootstrap over rows; changes in pairs over the same rows. Better or worse is said "
    f"only where the interval of the change excludes zero and the change is at least {100 * NEGLIGIBLE:.1f} % of the "
    "figure before, the rounding error of a bfloat16 number; a smaller one is negligible. "
    f"With fewer than {FEWEST_ROWS} rows nothing is tested."
)
MEASURED_APART = "measured in two ways: no comparison"
Event = dict[str, Any]
_EVERY = (  # of a journal that names no task
    ANSWERS,
    *CLASSIFICATION,
    *ENTITIES,
    LOSS,
    ACCURACY,
    BITS,
    GENERAL_BITS,
    GENERAL_LOSS,
)


def measures(before: Event, after: Event, task: str | None = None, is_new: bool = False) -> list[dict[str, Any]]:
    """The figures of two evaluations, the change of each and the verdict that its rows allow.

    Args:
        before, after: ``evaluation`` events; {} where there is none. One before training may have a ``name``: what
            was evaluated instead of a model that is not trained yet, such as the majority class.
        task: what was learned; it says which figures are shown, and in which order. None: all but perplexity, which
            follows from the loss.
        is_new: whether the model began with random weights, so that it has nothing to forget.
    """
    listed: list[dict[str, Any]] = []
    for figure in TASKS[task].figures if task in TASKS else _EVERY:
        old, new = before.get(figure.part) or {}, after.get(figure.part) or {}
        if figure.name not in old and figure.name not in new:
            continue
        if figure is ANSWERS:
            listed += [_answers(old, new), *_macro_f1(old, new)]
            continue
        sides = _rows(old, figure), _rows(new, figure)
        measure = _measure(
            old.get(figure.name), new.get(figure.name), *sides, figure.better, figure.has_varying_denominators
        )
        if all(figure.name in (side.get("resamples") or {}) for side in (old, new) if figure.name in side):
            _add_intervals(measure, old, new, figure)
        _add_signature(measure, old, new, figure)
        if figure is PERPLEXITY:
            measure = _perplexity(next(other for other in listed if other["key"] == LOSS.key))
        detail = old.get("name") or new.get("name") or ""
        if figure is CLASS_ACCURACY and not before.get("name") and (baseline := _commonest_class(new or old)):
            measure["baseline"], detail = baseline, baseline_note(baseline)
        title = (is_new and figure.title_of_new) or figure.title
        detail = "; ".join(filter(None, [detail, measure.get("signature", "")]))
        listed.append({**measure, "key": figure.key, "title": title, "unit": figure.unit, "detail": detail})
    return listed


def _add_signature(measure: dict[str, Any], old: Event, new: Event, figure: Figure) -> None:
    """The signature of a figure; where the two sides have other ones, they are not compared."""
    named = [(side.get("signatures") or {}).get(figure.name) for side in (old, new)]
    signatures = list(dict.fromkeys(each for each in named if each))
    if signatures:
        measure["signature"] = " / ".join(signatures)
    if len(signatures) > 1:
        measure["change"], measure["verdict"] = None, MEASURED_APART


def _add_intervals(measure: dict[str, Any], old: Event, new: Event, figure: Figure) -> None:
    """Intervals of a figure that was computed over resampled rows, which are the same on both sides."""
    rows = {side["rows"] for side in (old, new) if figure.name in side}
    measure["rows"] = max(rows)
    if max(rows) < FEWEST_ROWS:
        return
    draws = [(side.get("resamples") or {}).get(figure.name) or [] for side in (old, new)]
    for name, own in zip(("before", "after"), draws, strict=True):
        measure[name]["interval"] = _ends([value for value in own if value is not None], measure[name]["value"], 0.0)
    if measure["change"] is None or len(rows) > 1 or len(draws[0]) != len(draws[1]):
        return
    pairs = [after - before for before, after in zip(*draws, strict=True) if None not in (before, after)]
    if ends := _ends(pairs, measure["change"]["value"], -1.0):
        measure["change"]["interval"] = ends
        change = metrics.Interval(measure["change"]["value"], *ends)
        measure["verdict"] = _verdict(change, measure["before"]["value"], figure.better)


def _ends(draws: list[float], value: float | None, least: float) -> list[float] | None:
    """The percentile interval of a figure between ``least`` and 1, moved by the bias of the resamples (Efron and
    Tibshirani 1993, chapter 10): a calibration error, a mean of absolute values, is larger over resampled rows."""
    if not draws or value is None:
        return None
    ends = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - (np.mean(draws) - value)
    return [float(end) for end in np.clip(ends, least, 1.0)]


def _perplexity(loss: dict[str, Any]) -> dict[str, Any]:
    """exp of the loss, with the loss's own interval ends and verdict: the same measurement in other words."""
    sides = {side: _exponential(loss[side]) for side in ("before", "after")}
    old, new = (sides[side]["value"] for side in ("before", "after"))
    change = None
    if old is not None and new is not None:
        change = {"value": new - old, "interval": None, "percent": 100 * (new - old) / old}
    return {**loss, **sides, "change": change}


def _exponential(side: dict[str, Any]) -> dict[str, Any]:
    ends = side["interval"]
    return {
        "value": _exp(side["value"]),
        "interval": None if ends is None else [_exp(end) for end in ends],
    }


def _exp(value: float | None) -> float | None:
    return None if value is None or not value < MAX_NATS else math.exp(value)


def _answers(old: Event, new: Event) -> dict[str, Any]:
    latest = new or old
    signatures = {side["signature"] for side in (old, new) if side.get("signature")}
    sides = [_values(side) for side in (old, new)]
    if len(signatures) > 1:  # two numbers that mean different things have no difference
        sides = [None, None]
    measure = _measure(old.get("value"), new.get("value"), sides[0], sides[1], better="higher")
    for name, side in (("before", old), ("after", new)):
        if measure[name]["interval"] is None and side.get("interval"):
            measure[name]["interval"] = list(side["interval"])
    if len(signatures) > 1:
        measure["change"], measure["verdict"] = None, MEASURED_APART
    baseline = _majority(latest.get("references") or [])
    details = [" / ".join(sorted(signatures))]
    if baseline:
        details.append(baseline_note(baseline))
    head = {
        "key": ANSWERS.key,
        "title": latest.get("metric", ANSWERS.title),
        "unit": "",
        "detail": "; ".join(details),
        "signature": " / ".join(sorted(signatures)),
        "baseline": baseline,
        "cut": {name: side.get("cut") for name, side in (("before", old), ("after", new))},
    }
    return {**head, **measure, "rows": latest.get("n") or measure["rows"]}


def _majority(references: list[str]) -> dict[str, Any] | None:
    """What always answering the commonest label of these rows gives: an accuracy that no model needs to learn for."""
    if not references:
        return None
    label, times = Counter(references).most_common(1)[0]
    return {"label": label, "value": times / len(references)}


def _commonest_class(classification: Event) -> dict[str, Any] | None:
    """The same from a confusion matrix, whose rows are the right classes."""
    counts = [sum(row) for row in classification.get("confusion") or []]
    if not sum(counts):
        return None
    return {"label": classification["labels"][counts.index(max(counts))], "value": max(counts) / sum(counts)}


def baseline_note(baseline: dict[str, Any]) -> str:
    """What the commonest label alone reaches, in words."""
    return f"the commonest label alone, {figures.shorten(baseline['label'])}: {figures.number(baseline['value'])}"


def note_of_cut(cut: dict[str, Any]) -> str:
    """How many answers were cut at the most tokens that one may have; empty where none was, or it is not known."""
    if not any(cut.values()):
        return ""
    before, after = (figures.count(cut[side]) for side in ("before", "after"))
    return f"answers cut at the most tokens (evaluate.max_tokens): {before} before, {after} after"


def _macro_f1(old: Event, new: Event) -> list[dict[str, Any]]:
    """The mean of the labels' F1: unlike accuracy, the commonest label alone does not make it high."""
    if not any(side.get("references") for side in (old, new)):
        return []
    labels = sorted({*(old.get("references") or []), *(new.get("references") or [])}, key=str)
    values = [
        metrics.macro_f1(side["answers"], side["references"], labels) if side.get("references") else None
        for side in (old, new)
    ]
    measure = _measure(values[0], values[1], None, None, better="higher")
    head = {"key": "macro_f1", "title": "Macro-F1", "unit": "", "detail": f"mean over {len(labels)} labels"}
    return [{**head, **measure, "rows": len((new or old)["references"])}]


def _values(side: Event) -> tuple[list[float], list[float]] | None:
    values = side.get("values")
    return (values, [1.0] * len(values)) if values else None


def _rows(side: Event, figure: Figure) -> tuple[list[float], list[float]] | None:
    """Numerators and denominators of each row, where the journal has them."""
    numerators = side.get(figure.numerators)
    weights = side.get(figure.denominators) if figure.denominators else [1.0] * len(numerators or [])
    if not numerators or not weights or len(numerators) != len(weights) or None in (*numerators, *weights):
        return None
    return [value / figure.divisor for value in numerators], weights


def _measure(
    old: float | None,
    new: float | None,
    before: tuple[list[float], list[float]] | None,
    after: tuple[list[float], list[float]] | None,
    better: str,
    has_varying_denominators: bool = False,
) -> dict[str, Any]:
    """One figure on both sides, its change, and the verdict that the rows allow."""
    change: dict[str, Any] | None = None
    verdict = None
    if old is not None and new is not None:
        change = {"value": new - old, "interval": None, "percent": 100 * (new - old) / old if old else None}
        verdict = "not tested: no figures by row"
        # pairs need the same rows: as many, and weighing the same where the weights are no result themselves
        if before and after and (has_varying_denominators or before[1] == after[1]):
            if len(before[0]) < FEWEST_ROWS:
                verdict = f"not tested: too few rows ({len(before[0])})"
            else:
                pairs = (
                    metrics.paired_ratios(before, after, level=LEVEL)
                    if has_varying_denominators
                    else metrics.paired_difference(before[0], after[0], level=LEVEL, weights=before[1])
                )
                change["interval"] = [pairs.low, pairs.high]
                verdict = _verdict(pairs, old, better)
    return {
        "better": better,
        "before": _side(old, before),
        "after": _side(new, after),
        "change": change,
        "verdict": verdict,
        "rows": len((after or before)[0]) if after or before else None,  # type: ignore[index]
    }


def _verdict(change: metrics.Interval, before: float, better: str) -> str:
    if not change.excludes_zero:
        return "no difference measured"
    if abs(change.value) < NEGLIGIBLE * abs(before):
        return "negligible"
    return "better" if (change.value < 0) == (better == "lower") else "worse"


def _side(value: float | None, rows: tuple[list[float], list[float]] | None) -> dict[str, Any]:
    interval = None
    if rows and value is not None and len(rows[0]) >= FEWEST_ROWS:
        resampled = metrics.bootstrap_interval(rows[0], level=LEVEL, weights=rows[1])
        interval = [resampled.low, resampled.high]
    return {"value": value, "interval": interval}
