"""What a person is warned of before believing what a blind test came to: too few prompts or raters, and biases."""

from __future__ import annotations

from lmworks.base.figures import count_of, list_names
from lmworks.ratings.agreement import TENTATIVE, Agreement
from lmworks.ratings.outcome import Outcome, PairResult

TELLING_RATE = 0.75
"""A win rate that a test should be able to tell from one half; prompts that cannot do so are called few."""
SLIGHT_RATE = 0.6
"""A win rate for which the number of prompts that it needs is told."""
FEW_UNITS = 10
"""Below so many, an alpha rests on single ratings."""


def warnings_of(outcome: Outcome) -> list[str]:
    """Sentences about what an outcome cannot bear, the gravest first."""
    if not outcome.raters:
        return ["nothing has been rated so far"]
    warnings = [_separation(outcome)] if outcome.strengths is None else []
    warnings += [_few_prompts(outcome, pair) for pair in outcome.pairs if _detectable(outcome, pair) > TELLING_RATE]
    warnings += _raters(outcome)
    if outcome.first_shown is not None and outcome.first_shown.is_biased:
        shown = outcome.first_shown
        share = f"{shown.chosen:,} of {shown.ratings:,} times, where {_percent(shown.expected)} are expected"
        warnings.append(f"the answer that was shown first was chosen {share}: raters look at places, too")
    progress = outcome.progress
    if progress.unanswered:
        warnings.append(f"{count_of(progress.unanswered, 'prompt')} left out: fewer than two models can answer")
    if progress.missing:
        warnings.append(f"{count_of(progress.missing, 'answer')} still to be made")
    return warnings


def _separation(outcome: Outcome) -> str:
    names = list_names(outcome.unbeaten)
    return f"there are no strengths of finite size: no answer of another model was ever preferred to one of {names}"


def _detectable(outcome: Outcome, pair: PairResult) -> float:
    """The smallest win rate that this pair's test finds four times in five; 1 where it can find none.

    A prompt that is won counts 1 and one that is lost -1: their mean is 2 rate - 1, their standard deviation about 1.
    """
    decided = pair.wins.decided
    if decided < outcome.analysis.fewest_rows:
        return 1.0
    return min(1.0, (1 + outcome.analysis.smallest_difference(decided, 1.0)) / 2)


def _few_prompts(outcome: Outcome, pair: PairResult) -> str:
    decided, analysis = pair.wins.decided, outcome.analysis
    if decided < analysis.fewest_rows:
        told = f"with fewer than {analysis.fewest_rows} no test can tell them apart"
    else:
        told = f"a win rate below {_percent(_detectable(outcome, pair))} is likely to be missed"
    needed = f"{analysis.rows_needed(2 * SLIGHT_RATE - 1, 1.0):,} are needed to find one of {_percent(SLIGHT_RATE)}"
    return f"{count_of(decided, 'prompt')} decided between {pair.first} and {pair.second}: {told}; {needed}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _raters(outcome: Outcome) -> list[str]:
    """Warnings about how many raters there are, and how far they agree."""
    if len(outcome.raters) == 1:
        return ["there is one rater: whether others would agree is not known"]
    known = {name: alpha for name, alpha in outcome.agreement.items() if alpha is not None}
    if not known:
        return ["no two raters saw the same prompt, or all said the same: their agreement cannot be told"]
    units = min(alpha.units for alpha in known.values())
    rated = count_of(units, "answer" if outcome.scores else "prompt")
    few = [f"only {rated} rated by two raters or more: their agreement is hardly known"]
    return (few if units < FEW_UNITS else []) + [_disagreement(*entry) for entry in known.items() if _is_low(entry[1])]


def _is_low(agreement: Agreement) -> bool:
    return agreement.alpha < TENTATIVE


def _disagreement(name: str, agreement: Agreement) -> str:
    return (
        f"raters agree little on {name}: alpha {agreement.alpha:.2f}; "
        f"below {TENTATIVE} not even tentative conclusions hold (Krippendorff 2004)"
    )
