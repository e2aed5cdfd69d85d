"""Row by row: which contender wins on which test rows, and their answers side by side. HTML for a comparison's page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmworks.base.figures import count_of, number, signed
from lmworks.comparisons import comparison_table
from lmworks.comparisons.comparison_details import Column, contender_table, two_lines
from lmworks.comparisons.comparison_state import Result, State
from lmworks.reports.markup import prose, section, text

EQUAL = 1e-9
"""Difference of a row's figures, as a share of the larger one, up to which they are equal."""
MOST_PROMPTS = 12


@dataclass(frozen=True)
class Balance:
    """How a contender does against another one, row by row.

    Attributes:
        won, equal, lost: numbers of rows.
    """

    won: int
    equal: int
    lost: int


def balance(result: Result, other: Result, higher_is_better: bool) -> Balance | None:
    """Rows that a contender wins and loses against another one; None where their rows are not the same.

    Args:
        result: with numerators and denominators by row.
        other: the contender to compare with.
        higher_is_better: of a row's figure.
    """
    if not result.numerators or len(result.numerators) != len(other.numerators):
        return None
    won = equal = lost = 0
    for first, second in zip(_by_row(result), _by_row(other), strict=True):
        if first is None or second is None:
            continue
        gain = (first - second) * (1 if higher_is_better else -1)
        if abs(gain) <= EQUAL * max(abs(first), abs(second)):
            equal += 1
        elif gain > 0:
            won += 1
        else:
            lost += 1
    return Balance(won, equal, lost)


def _by_row(result: Result) -> list[float | None]:
    """The figure of each row; None where it has none."""
    has_denominators = len(result.denominators) == len(result.numerators)
    denominators = result.denominators if has_denominators else [1.0] * len(result.numerators)
    return [
        numerator / denominator if numerator is not None and denominator else None
        for numerator, denominator in zip(result.numerators, denominators, strict=True)
    ]


def differences(state: State) -> str:
    """How far each contender is from the best one, how sure that is, and the rows that it wins and loses; empty with
    a single contender."""
    if len(state.done) < 2:
        return ""
    best = comparison_table.ordered(state)[0]
    columns: list[Column] = [
        ("difference", _difference),
        ("p", lambda result: _p(result.difference.get("p"))),
        ("p, Holm", lambda result: _p(result.difference.get("p_holm"))),
        ("verdict", _verdict),
        ("rows that would tell it apart", _rows_needed),
        ("rows won · equal · lost", lambda result: _bar(state, result, best)),
    ]
    about = "p, Holm: corrected for the number of comparisons by Holm's method"
    table = contender_table(state, columns)
    note = f'<p class="detail">{text(about)}</p>'
    return section(f"Against the best: {best.title}", table + note) if table else ""


def _difference(result: Result) -> str:
    difference = result.difference
    if difference.get("value") is None:
        return ""
    return two_lines(signed(difference["value"]), comparison_table.ends(difference.get("interval"), sign=True))


def _p(value: float | None) -> str:
    return "" if value is None else prose("< 0.001" if value < 0.001 else number(value, 2))


def _verdict(result: Result) -> str:
    differs = result.difference.get("differs")
    if differs is None:
        return ""
    kind, word = ("verdict worse", "beyond chance") if differs else ("verdict", "within chance")
    return f'<span class="{kind}">{word}</span>'


def _rows_needed(result: Result) -> str:
    needed = result.difference.get("rows_needed")
    return "" if needed is None else f"{needed:,}"


def _bar(state: State, result: Result, best: Result) -> str:
    """A bar of the rows that a contender wins, shares and loses, with their numbers."""
    counts = None if result is best else balance(result, best, state.measure.get("better") == "higher")
    if counts is None:
        return ""
    parts = "".join(
        f'<i class="{kind}" style="flex-grow: {rows}"></i>'
        for kind, rows in (("won", counts.won), ("equal", counts.equal), ("lost", counts.lost))
        if rows
    )
    said = f"{counts.won:,} · {counts.equal:,} · {counts.lost:,}"
    words = f"{count_of(counts.won, 'row')} won, {counts.equal:,} equal, {counts.lost:,} lost"
    return f'<span class="balance" title="{text(words)}"><span class="bar">{parts}</span>{text(said)}</span>'


def answers(state: State) -> str:
    """The answers of all contenders to the same test rows, those alike together, the recommended one's marked."""
    by_prompt: dict[tuple[str, str], list[tuple[Result, dict[str, Any]]]] = {}
    for result in comparison_table.ordered(state):
        for item in result.answers:
            key = str(item.get("prompt", "")), str(item.get("reference", ""))
            by_prompt.setdefault(key, []).append((result, item))
    blocks = [_prompt(state, *key, items) for key, items in list(by_prompt.items())[:MOST_PROMPTS]]
    more = len(by_prompt) - len(blocks)
    left_out = f'<p class="detail">{text(count_of(more, "more row"))} in comparison.json</p>' if more else ""
    return section("Answers side by side", "".join(blocks) + left_out) if blocks else ""


def _prompt(state: State, prompt: str, reference: str, items: list[tuple[Result, dict[str, Any]]]) -> str:
    """One test row: its reference, then each different answer with the contenders that gave it."""
    alike: dict[str, list[tuple[Result, dict[str, Any]]]] = {}
    for result, item in items:
        alike.setdefault(str(item.get("answer", "")).strip(), []).append((result, item))
    lines = "".join(_answer(state, answer, reference, group) for answer, group in alike.items())
    right = f'<p class="reference"><span class="soft">reference</span> {text(reference)}</p>' if reference else ""
    return f'<div class="sample"><h3>{text(prompt)}</h3>{right}<ul class="given">{lines}</ul></div>'


def _answer(state: State, answer: str, reference: str, group: list[tuple[Result, dict[str, Any]]]) -> str:
    chosen = state.recommendation.get("name")
    names = []
    for result, item in group:
        title = text(result.title)
        score = item.get("score")
        figure = f' <span class="soft">{prose(number(score))}</span>' if isinstance(score, int | float) else ""
        names.append(f"<li>{f'<b>{title}</b>' if result.name == chosen else title}{figure}</li>")
    is_right = bool(reference) and answer == reference.strip()
    mark = '<span class="verdict better">as the reference</span>' if is_right else ""
    shown = text(answer) if answer else '<span class="soft">no answer</span>'
    kind = ' class="right"' if is_right else ""
    return f'<li{kind}><p>{shown}</p>{mark}<ul class="by">{"".join(names)}</ul></li>'
