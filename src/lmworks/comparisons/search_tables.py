"""The searches of a comparison: for each contender, the validation score by learning rate and length. HTML."""

from __future__ import annotations

from lmworks.base.figures import UNKNOWN, duration, number
from lmworks.comparisons.comparison_state import Result, State, Trial
from lmworks.reports.markup import prose, section, text


def render(state: State) -> str:
    """A small table for each contender that was searched; empty if none was."""
    tables = "".join(_table(result) for result in state.results if result.search)
    if not tables:
        return ""
    scored = [trial for result in state.results for trial in result.search if trial.score is not None]
    direction = f", {scored[0].better} is better" if scored else ""
    about = (
        f"Score on the validation part{direction}: rows are learning rates, columns are lengths in epochs. "
        "Each column keeps the better half of the rates. The framed one was taken."
    )
    return section("The search", f'<p class="detail">{text(about)}</p><div class="searches">{tables}</div>')


def _table(result: Result) -> str:
    shares = sorted({trial.share for trial in result.search if trial.share is not None})
    rates = sorted({trial.learning_rate for trial in result.search if trial.learning_rate is not None})
    scores = [trial.score for trial in result.search if trial.score is not None]
    heads = "".join(f'<th scope="col">{prose(_length(result, share))}</th>' for share in shares)
    rows = "".join(
        f'<tr><th scope="row">{rate:g}</th>{"".join(_cell(result, rate, share, scores) for share in shares)}</tr>'
        for rate in rates
    )
    return (
        f"<table><caption>{text(result.title)}</caption><thead><tr><td></td>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _length(result: Result, share: float) -> str:
    """Epochs of the runs of one round."""
    return next(number(trial.epochs, 2) for trial in result.search if trial.share == share)


def _cell(result: Result, rate: float, share: float, scores: list[float]) -> str:
    """A score, the darker the better it is among those of the contender."""
    trial = next((trial for trial in result.search if (trial.learning_rate, trial.share) == (rate, share)), None)
    if trial is None:
        return "<td></td>"
    if trial.score is None:
        return f"<td>{'…' if trial.state == 'open' else UNKNOWN}</td>"
    low, high = min(scores), max(scores)
    depth = (trial.score - low) / (high - low) if high > low else 0.5
    depth = 1.0 - depth if trial.better == "lower" else depth
    kind = ' class="taken"' if _is_taken(result, trial) else ""
    said = f"learning rate {rate:g}, {number(trial.epochs)} epochs, {duration(trial.seconds)}"
    shade = f'style="--depth: {8 + 40 * depth:.0f}%"'
    return f'<td{kind} {shade} title="{text(said)}">{text(number(trial.score))}</td>'


def _is_taken(result: Result, trial: Trial) -> bool:
    choice = result.chosen
    return bool(choice) and (choice.get("learning_rate"), choice.get("epochs")) == (trial.learning_rate, trial.epochs)
