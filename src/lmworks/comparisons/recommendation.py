"""Which contender to take, and why: from the figures of a comparison alone, so that it can be checked by hand.

Among the contenders that are not worse than the best beyond chance, the cheapest one: a simple one before those that
adapt the model, one without training before the trained ones, and of these the one whose search and training took the
fewest seconds. What it gains and what it gives up is said in numbers, and so is what the test part
could not have told apart. If that one is right on no row, the rows say nothing, and nothing is recommended.
"""

from __future__ import annotations

from typing import Any

from lmworks.base.figures import count_of, list_names, number, percent, signed
from lmworks.comparisons.comparison_state import Result, State
from lmworks.comparisons.contenders import CONTENDERS, SIMPLE
from lmworks.evaluate.significance import PairedComparison


def recommend(state: State, compared: PairedComparison | None) -> dict[str, Any]:
    """The recommendation: "name", "title", "reasons" (sentences); empty where fewer than two contenders have a figure,
    or :func:`why_nothing` has a reason.

    Args:
        state: of the comparison, with the differences of its contenders.
        compared: the same as significance tests gave it.
    """
    if compared is None or why_nothing(state):
        return {}
    best, equal = _equal(state)
    chosen = min(equal, key=_work)
    reasons = [_headline(state, chosen, best, equal), *_behind(state, best, equal)]
    reasons += _forgetting(chosen, equal)
    reasons.append(_uncertainty(state, compared))
    return {"name": chosen.name, "title": chosen.title, "reasons": [reason for reason in reasons if reason]}


def why_nothing(state: State) -> str:
    """Why nothing is recommended though several contenders have a figure: a zero is as good as the best of them."""
    if state.measure.get("better") != "higher" or not state.best:
        return ""
    best, equal = _equal(state)
    if not best.value:
        return "no contender is right on any of the test rows"
    chosen = min(equal, key=_work)
    if chosen.value:
        return ""
    return (
        f"the best, {best.title} ({number(best.value)}), cannot be told apart from {chosen.title}, which has 0: more "
        "test rows may"
    )


def _equal(state: State) -> tuple[Result, list[Result]]:
    """The best contender, and all that are not worse beyond chance, itself among them."""
    best = next(result for result in state.done if result.name == state.best)
    return best, [result for result in state.done if result is best or not result.difference.get("differs")]


def _work(result: Result) -> tuple[int, float]:
    """What a contender asks: first whether it adapts the model, and whether it trains it; then the seconds of all its
    runs. Among those that do not adapt it, the first in the list of contenders, which begins with the simplest."""
    if result.kind in SIMPLE:
        return 0, float(list(CONTENDERS).index(result.name))
    return (1 if result.kind == "prompted" else 2), float(result.cost.get("all_seconds") or result.seconds)


def _headline(state: State, chosen: Result, best: Result, equal: list[Result]) -> str:
    """The contender to take, beside the best one."""
    title, figure = state.measure["title"], number(chosen.value)
    if chosen.kind in SIMPLE:
        trained = [result for result in state.done if result.kind not in SIMPLE]
        beaten = "no way to adapt the model was compared; lmworks compare --add lora FOLDER adds one"
        if trained:
            beaten = "no way to adapt the model beats it beyond chance"
            if chosen is not best:
                beaten += f": the best, {best.title}, has {number(best.value)}"
        return f"{chosen.title} ({title} {figure}): {beaten}"
    if chosen is best:
        is_alone = len(equal) == 1
        alone = " and nothing else is within chance of it" if is_alone else ", and the cheapest within chance of it"
        return f"{chosen.title}: the best, {title} {figure}{alone}"
    shares = _share(chosen, best, "peak_memory", "memory"), _share(chosen, best, "all_seconds", "time")
    costs = [share for share in shares if share]
    at = f" at {' and '.join(costs)}" if costs else ""
    return f"{chosen.title}: {title} {figure}, within chance of {best.title} ({number(best.value)}){at}"


def _share(chosen: Result, best: Result, key: str, what: str) -> str:
    chosen_cost, best_cost = chosen.cost.get(key), best.cost.get(key)
    return f"{percent(chosen_cost / best_cost)} of its {what}" if chosen_cost and best_cost else ""


def _behind(state: State, best: Result, equal: list[Result]) -> list[str]:
    """How far the others are behind."""
    behind = [result for result in state.done if result not in equal]
    if not behind:
        return ["no other contender could be told apart from the best"] if len(equal) > 1 else []
    listed = [
        f"{result.title} {number(abs(result.difference['value']))}"
        for result in sorted(behind, key=lambda result: abs(result.difference["value"]))
    ]
    return [f"behind {best.title} beyond chance, by: {list_names(listed)}"]


def _forgetting(chosen: Result, equal: list[Result]) -> list[str]:
    """What the chosen contender forgets, beside those as good as it."""
    lines = []
    for key, measure in chosen.forgetting.items():
        others = [result for result in equal if result is not chosen and key in result.forgetting]
        beside = list_names([f"{result.title} {_change(result.forgetting[key])}" for result in others])
        figures = f"{number(measure['before'])} → {number(measure['after'])}"
        change = " ".join(filter(None, [figures, measure["unit"], f"({_change(measure)})"]))
        lines.append(f"{measure['title']}: {change}" + (f"; {beside}" if beside else ""))
    return lines


def _change(measure: dict[str, Any]) -> str:
    return signed(measure["after"] - measure["before"])


def _uncertainty(state: State, compared: PairedComparison) -> str:
    """What the test part could not have told apart."""
    rows, tests = count_of(compared.rows, "test row"), count_of(compared.analysis.comparisons, "comparison")
    if not compared.can_tell:
        fewest = f"{compared.fewest_rows} would be the least"
        return f"{rows}: too few to tell any of {len(compared.contenders)} contenders apart; {fewest}"
    smallest = sorted(
        contender.smallest_difference for contender in compared.contenders if contender.smallest_difference
    )
    if not smallest:
        return ""
    needed = [
        contender.rows_needed for contender in compared.contenders if contender.rows_needed and not contender.differs
    ]
    more = f"; {max(needed):,} rows would be needed for the smallest difference in the table" if needed else ""
    middle = number(smallest[len(smallest) // 2])
    paired = f"paired tests, corrected for {tests} by Holm's method"
    return f"{rows} find a difference of {middle} four times in five ({paired}){more}"
