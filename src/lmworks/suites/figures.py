"""The metrics of benchmarks, by name: what a model's answers come to, with signature and interval.

Those of evaluate/metric_registry are computed there; here are those that only benchmarks have: by group, by pair, of
options by their likelihood per byte and token, of final numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.evaluate import metric_registry
from lmworks.evaluate.metric_score import Better, MetricScore, Signature
from lmworks.evaluate.metrics import FEWEST_ROWS, final_number, number_match
from lmworks.evaluate.predicted_rows import PredictedRows
from lmworks.evaluate.retrieval import ndcg, recall, reciprocal_rank
from lmworks.evaluate.row_figures import ComputedFigure, RowFigure, RowFigures, interval
from lmworks.suites.choices import PER_BYTE, PER_TOKEN
from lmworks.suites.files import Unavailable
from lmworks.suites.form import MAIN, Answer

LARGEST_EXPONENT = 700.0  # of a float64
RULES = {"accuracy_per_byte": (PER_BYTE, "byte"), "accuracy_per_token": (PER_TOKEN, "token")}
"""Accuracies of options by their likelihood divided by their length: the prediction, and what is divided by."""


def group_mean(answers: Sequence[Answer]) -> MetricScore:
    """The mean over groups of their accuracies, as benchmarks of many subjects are summed up."""
    groups = accuracies_of_groups(answers)
    return _score("group_mean", "mean accuracy of groups", RowFigures.of(list(groups.values())))


def group_exact_match(answers: Sequence[Answer]) -> MetricScore:
    """The share of groups of which all rows are right (MultiRC's exact match: Khashabi et al. 2018)."""
    whole = [float(value == 1.0) for value in accuracies_of_groups(answers).values()]
    return _score("group_exact_match", "groups wholly right", RowFigures.of(whole))


def agreement(answers: Sequence[Answer]) -> MetricScore:
    """The share of pairs whose rows all have the same answer (gender parity: Wang et al. 2019, section 3.2)."""
    pairs: dict[str, list[Any]] = {}
    for answer in answers:
        pairs.setdefault(answer.question.pair, []).append(answer.predictions[MAIN])
    same = [float(len(set(given)) == 1) for given in pairs.values() if len(given) > 1]
    return _score("agreement", "same answer in pairs", RowFigures.of(same) if same else None)


def positive_f1(answers: Sequence[Answer]) -> MetricScore:
    """F1 of the last label: what MRPC, QQP and MultiRC call positive."""
    last = len(answers[0].question.options) - 1
    given = np.array([answer.predictions[MAIN] == last for answer in answers], dtype=np.float64)
    right = np.array([last in answer.references for answer in answers], dtype=np.float64)
    name = answers[0].question.names[last]
    score = _score("f1", "F1", RowFigures.of(2 * given * right, given + right))
    return replace(score, signature=score.signature.with_settings(label=name))


def right_numbers(answers: Sequence[Answer]) -> MetricScore:
    """The share of answers that end in the reference's number (GSM8K: Cobbe et al. 2021)."""
    rows = [max(number_match(answer.predictions[MAIN], text) for text in answer.references) for answer in answers]
    without = sum(final_number(answer.predictions[MAIN]) is None for answer in answers)
    score = _score("number_match", "right number", RowFigures.of(rows))
    return replace(score, details={"answers_without_number": without})


def word_perplexity(answers: Sequence[Answer]) -> MetricScore:
    """exp of the mean nats per word that was asked."""
    columns = np.array([[answer.numbers["nats"], answer.numbers["words"]] for answer in answers])
    figure = ComputedFigure.of_sums(
        columns, lambda sums: np.exp(np.minimum(sums[:, 0] / np.maximum(sums[:, 1], 1.0), LARGEST_EXPONENT))
    )
    return _score("word_perplexity", "perplexity per word", figure, "lower", (0.0, math.inf))


def _of_rankings(
    name: str, title: str, measure: Callable[[Any, Any], float]
) -> Callable[[Sequence[Answer]], MetricScore]:
    """The mean of a figure of rankings over queries that have a relevant document."""

    def compute(answers: Sequence[Answer]) -> MetricScore:
        pairs = [(answer.predictions[MAIN], answer.references[0]) for answer in answers]
        rows = [measure(*pair) for pair in pairs if any(gain > 0 for gain in pair[1].values())]
        return _score(name, title, RowFigures.of(rows) if rows else None)

    return compute


OWN: dict[str, Callable[[Sequence[Answer]], MetricScore]] = {
    "group_mean": group_mean,
    "group_exact_match": group_exact_match,
    "agreement": agreement,
    "f1": positive_f1,
    "number_match": right_numbers,
    "word_perplexity": word_perplexity,
    "ndcg_at_10": _of_rankings("ndcg_at_10", "nDCG@10", ndcg),
    "recall_at_10": _of_rankings("recall_at_10", "recall@10", lambda ranking, judged: recall(ranking, judged, 10)),
    "mrr": _of_rankings("mrr", "MRR", reciprocal_rank),
}


def check_metrics(names: Sequence[str], place: str) -> None:
    """Refuse names that are no metrics, and metrics whose library is not installed.

    Raises:
        InputError: one is no metric.
        Unavailable: a library is not installed.
    """
    known = [*OWN, *RULES, *metric_registry.METRICS]
    if unknown := next((name for name in names if name not in known), None):
        raise InputError(f"there is no metric {unknown!r}", place, f"one of: {', '.join(known)}")
    for name in names:
        if name not in OWN and name not in RULES and metric_registry.METRICS[name].reads == "texts":
            try:
                metric_registry.score(name, PredictedRows(["a"], [["a"]]))
            except InputError as error:
                raise Unavailable(error.fault, place, error.hint) from error


def scores_of(names: Sequence[str], answers: Sequence[Answer]) -> list[MetricScore]:
    """The scores of some metrics; those of predictions that there are none of are left out.

    Args:
        names: of OWN, RULES or metric_registry.METRICS.
        answers: at least one.

    Raises:
        InputError: a metric asks for a library that is not installed.
    """
    scores = []
    for name in names:
        if name in OWN:
            scores.append(OWN[name](answers))
        elif name not in RULES:
            scores.append(_registered(name, answers))
        elif RULES[name][0] in answers[0].predictions:
            scores.append(_accuracy_per(name, answers))
    return scores


def accuracies_of_groups(answers: Sequence[Answer], rule: str = MAIN) -> dict[str, float]:
    """The share of right rows of each group."""
    groups: dict[str, list[bool]] = {}
    for answer in answers:
        groups.setdefault(answer.question.group, []).append(answer.predictions[rule] in answer.references)
    return {group: float(np.mean(right)) for group, right in groups.items()}


def _registered(name: str, answers: Sequence[Answer], rule: str = MAIN) -> MetricScore:
    """A metric of evaluate/metric_registry."""
    score = metric_registry.score(name, _predicted_rows(answers, rule))
    groups = accuracies_of_groups(answers, rule) if name == "accuracy" else {}
    return replace(score, details={**score.details, "groups": groups}) if len(groups) > 1 else score


def _accuracy_per(name: str, answers: Sequence[Answer]) -> MetricScore:
    rule, divisor = RULES[name]
    score = _registered("accuracy", answers, rule)
    signature = score.signature.with_settings(divided_by=f"{divisor}s")
    return replace(score, title=f"accuracy per {divisor}", signature=signature)


def _predicted_rows(answers: Sequence[Answer], rule: str) -> PredictedRows:
    """Answers as the registry reads them; of several right options the one that was chosen, if it is among them."""
    places = [answer.question.item.place for answer in answers]
    if isinstance(answers[0].predictions[rule], list):
        return PredictedRows(
            tags=[answer.predictions[rule] for answer in answers],
            reference_tags=[answer.references[0] for answer in answers],
            places=places,
        )
    predicted = [_written(answer, answer.predictions[rule]) for answer in answers]
    references = [[_written(answer, value) for value in answer.references] for answer in answers]
    if answers[0].question.options:
        pairs = zip(predicted, references, strict=True)
        references = [[text] if text in listed else listed[:1] for text, listed in pairs]
    return PredictedRows(predicted, references, places, places)


def _written(answer: Answer, value: Any) -> str:
    """A prediction or a reference as text: an option by its name."""
    names = answer.question.names
    return names[value] if names else str(value)


def _score(
    name: str,
    title: str,
    figure: RowFigure | None,
    better: Better = "higher",
    limits: tuple[float, float] = (0.0, 1.0),
) -> MetricScore:
    """A score of rows; None where there are none."""
    if figure is None:
        return MetricScore(title, None, Signature(name), 0, better)
    rows = len(figure.columns)
    ends = interval(figure, within=limits) if rows >= FEWEST_ROWS else None
    return MetricScore(title, figure.value, Signature(name), rows, better, ends)
