"""What quality costs: the contenders of a comparison as points, and which of them none beats in both. Draws nothing.

A contender is on the Pareto front of a chart if no other is at least as good in both and better in one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmworks.base.figures import UNKNOWN, byte_size, count, duration, number, signed
from lmworks.comparisons import comparison_table
from lmworks.comparisons.chart_scales import SECONDS, short_count, short_duration, short_size
from lmworks.comparisons.comparison_state import Result, State
from lmworks.comparisons.contenders import SIMPLE

TIME = "training time"
FEWEST = 2
"""Points of a chart."""
LOG_RATIO = 10.0
"""Between the largest and the smallest value of a measure that has no upper end, from which it is drawn by its
logarithm."""


@dataclass(frozen=True)
class Point:
    """A contender in a chart.

    Attributes:
        title: of the contender.
        x, y: what it costs, and the measure.
        x_ends, y_ends: of their 95 % intervals; None: not known.
        is_simple: whether it does not adapt the model.
        is_recommended: whether it is the recommended one.
        is_on_front: whether it is on the Pareto front.
        lines: all its numbers, in words.
    """

    title: str
    x: float
    y: float
    x_ends: list[float] | None
    y_ends: list[float] | None
    is_simple: bool
    is_recommended: bool
    is_on_front: bool
    lines: list[str]


@dataclass(frozen=True)
class TradeOff:
    """The measure against one kind of cost.

    Attributes:
        cost: what it is, with its unit where ``tick`` does not say it.
        measure: what stands against it.
        higher_is_better: of the measure.
        lower_is_cheaper: of the cost.
        is_log, is_measure_log: which axes are logarithmic.
        points: the contenders with both numbers, the best first.
        missing: titles of those with a measure, but without this cost.
        tick: prints a round number of the cost; None: a plain number.
        rounds: round numbers of the cost; empty: 1, 2 and 5 times powers of ten.
    """

    cost: str
    measure: str
    higher_is_better: bool
    lower_is_cheaper: bool
    is_log: bool
    is_measure_log: bool
    points: list[Point]
    missing: list[str]
    tick: Callable[[float], str] | None
    rounds: Sequence[float] = ()

    @property
    def front(self) -> list[Point]:
        """The points of the Pareto front, the cheapest first."""
        on_front = [point for point in self.points if point.is_on_front]
        return sorted(on_front, key=lambda point: point.x if self.lower_is_cheaper else -point.x)


@dataclass(frozen=True)
class _Cost:
    title: str
    of: Callable[[Result], float | None]
    is_log: bool = True
    tick: Callable[[float], str] | None = None
    rounds: Sequence[float] = ()
    ends_of: Callable[[Result], list[float] | None] = lambda result: None
    lower_is_cheaper: bool = True


def _trained(key: str) -> Callable[[Result], float | None]:
    """A cost of training, which is nothing where nothing is trained."""
    return lambda result: result.cost.get(key) or (0.0 if result.kind == "prompted" else result.cost.get(key))


COSTS = (
    _Cost(TIME, _trained("training_seconds"), tick=short_duration, rounds=SECONDS),
    _Cost("peak memory", lambda result: result.cost.get("peak_memory"), is_log=False, tick=short_size),
    _Cost("trained parameters", _trained("trained_parameters"), tick=short_count),
)


def trade_offs(state: State) -> list[TradeOff]:
    """The measure against training time, peak memory, trained parameters, and each measure of forgetting.

    Args:
        state: with finite numbers (comparisons/finite_figures).
    """
    return [
        trade_off
        for cost in (*COSTS, *_forgettings(state))
        if len((trade_off := _trade_off(state, cost)).points) >= FEWEST
    ]


def _forgettings(state: State) -> list[_Cost]:
    """What the contenders forgot: a cost for each way in which it was measured."""
    measures = {key: measure for result in state.done for key, measure in result.forgetting.items()}

    def cost(key: str, title: str, unit: str, better: str) -> _Cost:
        def change(result: Result) -> float | None:
            measure = result.forgetting.get(key)
            return None if measure is None else measure["after"] - measure["before"]

        def ends(result: Result) -> list[float] | None:
            interval: list[float] | None = result.forgetting.get(key, {}).get("interval")
            return interval

        name = f"forgetting: {title}, change{f' of {unit}' if unit and unit != title else ''}"
        return _Cost(name, change, is_log=False, ends_of=ends, lower_is_cheaper=better == "lower")

    return [
        cost(key, str(measure["title"]), str(measure["unit"]), str(measure["better"]))
        for key, measure in measures.items()
    ]


def _trade_off(state: State, cost: _Cost) -> TradeOff:
    ordered = comparison_table.ordered(state)[: len(state.done)]
    known = [(result, x, result.value) for result in ordered if (x := cost.of(result)) is not None]
    places = [(x, y) for _, x, y in known if y is not None]
    higher = state.measure.get("better") == "higher"
    chosen = state.recommendation.get("name")
    points = [
        Point(
            title=result.title,
            x=x,
            y=y,
            x_ends=cost.ends_of(result),
            y_ends=result.interval,
            is_simple=result.kind in SIMPLE,
            is_recommended=result.name == chosen,
            is_on_front=is_on_front((x, y), places, higher, cost.lower_is_cheaper),
            lines=describe(result, state),
        )
        for result, x, y in known
        if y is not None
    ]
    return TradeOff(
        cost=cost.title,
        measure=str(state.measure.get("title", "")),
        higher_is_better=higher,
        lower_is_cheaper=cost.lower_is_cheaper,
        is_log=cost.is_log,
        is_measure_log=not higher and _spans_powers([y for _, y in places]),
        points=points,
        missing=[result.title for result in ordered if cost.of(result) is None],
        tick=cost.tick,
        rounds=cost.rounds,
    )


def _spans_powers(values: Sequence[float]) -> bool:
    return bool(values) and 0 < LOG_RATIO * min(values) <= max(values)


def is_on_front(
    point: tuple[float, float], points: Sequence[tuple[float, float]], higher_is_better: bool, lower_is_cheaper: bool
) -> bool:
    """Whether no point is at least as good in both numbers and better in one.

    Args:
        point: (cost, measure) of a point.
        points: of all.
        higher_is_better: of the measure.
        lower_is_cheaper: of the cost.
    """
    cost_sign, sign = (1.0 if lower_is_cheaper else -1.0), (1.0 if higher_is_better else -1.0)

    def gains(other: tuple[float, float]) -> tuple[float, float]:
        return cost_sign * (point[0] - other[0]), sign * (other[1] - point[1])

    return not any(min(gains(other)) >= 0 and max(gains(other)) > 0 for other in points)


def describe(result: Result, state: State) -> list[str]:
    """All numbers of a contender that charts show, in words."""
    cost, unit = result.cost, state.measure.get("title", "")
    ends = f" ({comparison_table.ends(result.interval)})" if result.interval else ""
    lines = [f"{result.title}{' (recommended)' if result.name == state.recommendation.get('name') else ''}"]
    lines.append(f"{unit} {number(result.value)}{ends}")
    if result.difference:
        p = result.difference.get("p_holm")
        tested = "" if p is None else f", p = {number(p, 2)} by Holm's correction"
        lines.append(f"{comparison_table.behind(result, state)} from the best{tested}")
    trained, total = cost.get("trained_parameters"), cost.get("parameters")
    texts = [
        ("training", duration, cost.get("training_seconds")),
        ("search", duration, cost.get("search_seconds") or None),
        ("peak memory", byte_size, cost.get("peak_memory")),
        ("kept on disk", byte_size, cost.get("disk")),
    ]
    lines += [f"{name} {form(value)}" for name, form, value in texts if value is not None]
    if trained is not None:
        lines.append(f"trained parameters {count(trained)}{f' of {count(total)}' if total else ''}")
    for measure in result.forgetting.values():
        lines.append(f"{measure['title']} {signed(measure['after'] - measure['before'])} {measure['unit']}".rstrip())
    return [line for line in lines if UNKNOWN not in line]
