"""What a blind test came to: strengths, win rates, scores, and how far raters agree.

A prompt counts once, however many raters saw it: their ratings of the same answers are not independent of each other.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lmworks.evaluate.row_figures import RowFigures
from lmworks.evaluate.significance import PairedComparison, PowerAnalysis, compare, holm
from lmworks.ratings import bradley_terry
from lmworks.ratings.agreement import Agreement, agreement
from lmworks.ratings.answers import are_identical
from lmworks.ratings.blind_test import BlindTest, Progress
from lmworks.ratings.preference_pairs import net_preference
from lmworks.ratings.rating import Rating
from lmworks.ratings.win_rates import WinRate, clopper_pearson

MEAN = "mean of all criteria"


@dataclass(frozen=True)
class ModelStrength:
    """The strength of a model (ratings/bradley_terry) and the ends of its interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairResult:
    """Two models, the one with more wins first.

    Attributes:
        first, second: their names.
        wins: of the first over the second, by prompt.
        adjusted_p_value: the exact test's p-value after Holm's correction for all pairs.
    """

    first: str
    second: str
    wins: WinRate
    adjusted_p_value: float


@dataclass(frozen=True)
class FirstShown:
    """How often the answer that was shown first is the best one alone.

    Attributes:
        chosen, ratings: counts; ties are left out.
        expected: the share that is expected, as the order is random.
    """

    chosen: int
    ratings: int
    expected: float

    @property
    def is_biased(self) -> bool:
        """Whether the exact interval of the share, of 95 %, excludes what is expected."""
        low, high = clopper_pearson(self.chosen, self.ratings)
        return not low <= self.expected <= high


@dataclass(frozen=True)
class Outcome:
    """What a test came to.

    Attributes:
        progress: of all raters together.
        raters: how many prompts each has rated.
        strengths: of the models, the strongest first; None where they are not finite.
        unbeaten: where they are not, the models to whose answers no other's was ever preferred.
        pairs: all pairs of models.
        first_shown: None where it cannot be told.
        agreement: of the raters on the best answer, or on the scores by each criterion; None: not defined.
        scores: by criterion, and of the mean of all; none where answers were chosen.
        analysis: of the tests of pairs: their number, level and power.
    """

    progress: Progress
    raters: dict[str, int]
    strengths: list[ModelStrength] | None
    unbeaten: list[str]
    pairs: list[PairResult]
    first_shown: FirstShown | None
    agreement: dict[str, Agreement | None]
    scores: dict[str, PairedComparison]
    analysis: PowerAnalysis


def outcome(test: BlindTest) -> Outcome:
    """What the ratings of a test say so far."""
    ratings = [rating for rating in test.ratings() if not rating.is_skipped]
    identical = [sorted(texts) for texts in test.answers.texts() if are_identical(texts)]
    raters: dict[str, int] = defaultdict(int)
    for rating in ratings:
        raters[rating.rater] += 1
    models = test.settings.models
    strengths, unbeaten = _strengths(models, ratings, identical)
    pairs = _pairs(models, ratings, identical)
    return Outcome(
        test.progress(),
        dict(raters),
        strengths,
        unbeaten,
        pairs,
        _first_shown(ratings),
        _agreement(test, ratings),
        _scores(test, ratings),
        PowerAnalysis(max(len(pairs), 1)),
    )


def _by_prompt(ratings: list[Rating]) -> dict[int, list[Rating]]:
    """The ratings of each prompt."""
    groups: dict[int, list[Rating]] = defaultdict(list)
    for rating in ratings:
        groups[rating.prompt].append(rating)
    return groups


def _strengths(
    models: list[str], ratings: list[Rating], identical: list[list[str]]
) -> tuple[list[ModelStrength] | None, list[str]]:
    """The strengths, or None and the models that are unbeaten. Identical answers are ties."""
    place = {model: number for number, model in enumerate(models)}
    groups = list(_by_prompt(ratings).values())
    shares = np.zeros((len(groups) + len(identical), len(models)))
    shown = np.zeros(shares.shape, dtype=bool)
    for row, group in enumerate(groups):
        shown[row, [place[model] for model in group[0].order]] = True
        for rating in group:
            for model in rating.preferred:
                shares[row, place[model]] += 1 / len(rating.preferred) / len(group)
    for row, tied in enumerate(identical, len(groups)):
        places = [place[model] for model in tied]
        shown[row, places], shares[row, places] = True, 1 / len(tied)
    if not len(shares):
        return None, []
    unbeaten = bradley_terry.separated(shown, shares)
    if unbeaten is not None:
        return None, [models[number] for number in unbeaten]
    fitted = bradley_terry.fit(shown, shares)
    strengths = [
        ModelStrength(model, float(fitted.values[number]), *fitted.interval(number))
        for number, model in enumerate(models)
    ]
    return sorted(strengths, key=lambda strength: -strength.value), []


def _pairs(models: list[str], ratings: list[Rating], identical: list[list[str]]) -> list[PairResult]:
    """The pairs of models, and their exact tests."""
    groups, results = list(_by_prompt(ratings).values()), []
    for first, second in combinations(models, 2):
        seen = [group for group in groups if {first, second} <= set(group[0].order)]
        signs = [np.sign(net_preference(group, first, second)) for group in seen]
        wins, losses = signs.count(1), signs.count(-1)
        ties = len(signs) - wins - losses + sum({first, second} <= set(tied) for tied in identical)
        if losses > wins:
            results.append((second, first, WinRate(losses, wins, ties)))
        else:
            results.append((first, second, WinRate(wins, losses, ties)))
    adjusted = holm([wins.p_value for _, _, wins in results])
    return [PairResult(*result, p_value) for result, p_value in zip(results, adjusted, strict=True)]


def _first_shown(ratings: list[Rating]) -> FirstShown | None:
    """How often the first answer was the best; None without any rating that has one best answer."""
    single = [rating for rating in ratings if len(rating.preferred) == 1]
    if not single:
        return None
    chosen = sum(rating.preferred == rating.order[:1] for rating in single)
    return FirstShown(chosen, len(single), float(np.mean([1 / len(rating.order) for rating in single])))


def _agreement(test: BlindTest, ratings: list[Rating]) -> dict[str, Agreement | None]:
    """Krippendorff's alpha: of the best answers by prompt, or of scores by prompt and model."""
    if test.settings.by == "choice":
        best = [[tuple(sorted(rating.preferred)) for rating in group] for group in _by_prompt(ratings).values()]
        return {"best answer": agreement(best, "nominal")}
    result = {}
    for criterion in test.settings.criteria:
        units: dict[tuple[int, str], list[int]] = defaultdict(list)
        for rating in ratings:
            for model, scores in (rating.scores or {}).items():
                units[rating.prompt, model].append(scores[criterion])
        result[criterion] = agreement(list(units.values()), "interval")
    return result


def _scores(test: BlindTest, ratings: list[Rating]) -> dict[str, PairedComparison]:
    """The scores of all models on the prompts on which all have some: a prompt's score is the mean over its raters."""
    models, criteria = test.settings.models, test.settings.criteria
    groups = [group for group in _by_prompt(ratings).values() if all(set(r.order) == set(models) for r in group)]
    if test.settings.by == "choice" or not groups:
        return {}
    result = {}
    for criterion in [*criteria, *([MEAN] if len(criteria) > 1 else [])]:
        figures = {model: RowFigures.of([_mean_score(group, model, criterion) for group in groups]) for model in models}
        result[criterion] = compare(figures)
    return result


def _mean_score(group: list[Rating], model: str, criterion: str) -> float:
    """The mean over raters of a model's scores on one prompt."""
    if criterion == MEAN:
        return float(np.mean([rating.mean_score(model) for rating in group]))
    return float(np.mean([rating.scores[model][criterion] for rating in group if rating.scores is not None]))
