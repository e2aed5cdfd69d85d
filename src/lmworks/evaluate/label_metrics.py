"""Metrics of predicted labels, of their probabilities, and of tags, each by scikit-learn where it has it.

Accuracy, F1 and Matthews' correlation (Matthews 1975; of several labels Gorodkin 2004) are of predicted labels; the
areas under ROC and precision-recall curve and the calibration error (Guo et al. 2017) of probabilities; entity F1
(Tjong Kim Sang and De Meulder 2003) of tags. scikit-learn gives the value, a function of sums over rows the same for
resampled rows: tests hold one against the other.

Shapes: R resamples, N rows, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names
from lmworks.evaluate.classification import calibration, gaps_by_bin, signatures
from lmworks.evaluate.entities import entity_figures
from lmworks.evaluate.metric_score import Signature
from lmworks.evaluate.predicted_rows import Measurement, MetricOptions, PredictedRows
from lmworks.evaluate.resampled_figures import Ranking
from lmworks.evaluate.row_figures import ComputedFigure, RowFigure, RowFigures

MORE_THAN_ONE = 1e-6
"""By so much a probability may pass 1, which was rounded."""


def accuracy(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """The share of rows with the right label."""
    predicted, right = rows.label_pairs("accuracy")
    figure = _accuracy(predicted, right)
    return Measurement(figure.value, figure, _signature("accuracy"), notes=_unknown_labels(predicted, right))


def f1(average: str) -> Callable[[PredictedRows, MetricOptions], Measurement]:
    """F1 of labels: ``macro``, the mean over labels; ``weighted``, weighted by how often each is right; ``micro``, of
    all rows together, which is the accuracy where each row has one label. Details: the F1 of each label."""

    def measure(rows: PredictedRows, options: MetricOptions) -> Measurement:
        from sklearn import metrics

        name = f"{average}_f1"
        predicted, right = rows.label_pairs(name)
        labels = _labels(rows, predicted, right)
        figure: RowFigure
        if average == "macro":
            figure = RowFigures.macro_f1(predicted, right, labels)
        elif average == "micro":
            figure = _accuracy(predicted, right)
        else:
            figure = ComputedFigure.of_sums(_counts(predicted, right, labels), _weighted_f1)
        value = float(metrics.f1_score(right, predicted, average=average, zero_division=0.0))
        known = sorted({*predicted, *right})
        each = metrics.f1_score(right, predicted, labels=known, average=None, zero_division=0.0)
        details = {"labels": {label: float(score) for label, score in zip(known, each, strict=True)}}
        signature = _signature(name).with_settings(average=average, zero_division="0")
        return Measurement(value, figure, signature, details, _unknown_labels(predicted, right))

    return measure


def matthews(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """Matthews' correlation of predicted and right labels, -1..1; 0 where one side has one label alone."""
    from sklearn import metrics

    predicted, right = rows.label_pairs("mcc")
    figure = ComputedFigure.of_sums(_counts(predicted, right, _labels(rows, predicted, right)), _matthews)
    has_several = len({*predicted, *right}) > 1  # scikit-learn warns of one label alone
    value = float(metrics.matthews_corrcoef(right, predicted)) if has_several else 0.0
    return Measurement(value, figure, _signature("mcc"), notes=_unknown_labels(predicted, right))


def roc_auc(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """Area under the ROC curve of each label against the others, 0..1, the mean over labels or that of one."""
    return _area("roc_auc", rows, options, Ranking.areas)


def pr_auc(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """Average precision of each label, 0..1, the mean over labels or that of one; details: the share of rows with each
    label, which a random order reaches."""
    return _area("pr_auc", rows, options, Ranking.average_precisions)


def _area(
    name: str, rows: PredictedRows, options: MetricOptions, areas: Callable[[Ranking, np.ndarray], np.ndarray]
) -> Measurement:
    from sklearn import metrics

    labels, probabilities, occurs, notes = _probabilities(name, rows)
    if options.positive is not None and options.positive not in labels:
        raise InputError(f"there is no label {options.positive!r}", "--positive", f"one of {list_names(labels)}")
    chosen = [number for number, label in enumerate(labels) if options.positive in (None, label)]
    shares = occurs.mean(0)
    counted = [number for number in chosen if 0 < shares[number] < 1]
    if not counted:
        fault = f"{name} needs rows with a label and rows without it, and there is no such label"
        raise InputError(fault, "references", "give rows of several labels")
    score = metrics.roc_auc_score if name == "roc_auc" else metrics.average_precision_score
    each = {labels[number]: float(score(occurs[:, number], probabilities[:, number])) for number in counted}

    def mean(weights: np.ndarray, columns: np.ndarray) -> np.ndarray:
        sides = np.split(columns, 2, axis=1)
        rankings = [Ranking(has > 0, probability) for has, probability in zip(*(side.T for side in sides), strict=True)]
        values = np.stack([areas(ranking, weights) for ranking in rankings], axis=1)
        known = ~np.isnan(values)
        total = np.where(known, values, 0.0).sum(1) / np.maximum(known.sum(1), 1)
        return np.where(known.any(1), total, np.nan)

    columns = np.concatenate([occurs[:, counted].astype(np.float64), probabilities[:, counted]], axis=1)
    average = "macro" if options.positive is None else f"label {options.positive.replace('|', '/')}"
    details = {"labels": each, "shares": {labels[number]: float(shares[number]) for number in counted}}
    signature = _signature(name).with_settings(average=average)
    return Measurement(float(np.mean(list(each.values()))), ComputedFigure(columns, mean), signature, details, notes)


def calibration_error(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """Expected calibration error of the likeliest labels, 0..1, less is better; details: the reliability diagram, of
    each bin of confidence its mean confidence, its accuracy and the number of its rows."""
    _, probabilities, occurs, notes = _probabilities("calibration_error", rows)
    for row, values in enumerate(probabilities):
        if values.min() < 0 or values.max() > 1 + MORE_THAN_ONE:
            fault = f"calibration is of probabilities, and {values.min():g} to {values.max():g} are none"
            raise InputError(fault, rows.place(row), "give probabilities from 0 to 1, as softmax makes them")
    confidence = np.minimum(probabilities.max(1), 1.0)
    correct = occurs[np.arange(len(occurs)), probabilities.argmax(1)]
    measured = calibration(confidence, correct)
    gaps = gaps_by_bin(confidence[:, None], correct[:, None])
    columns = np.concatenate([gaps, np.ones((len(gaps), 1))], axis=1)

    def error(sums: np.ndarray) -> np.ndarray:
        return np.abs(sums[:, :-1]).sum(1) / sums[:, -1]

    bins = [dict(zip(("confidence", "accuracy", "rows"), each, strict=True)) for each in measured.bins]
    signature = Signature.parse(signatures()["calibration_error"])
    return Measurement(measured.error, ComputedFigure.of_sums(columns, error), signature, {"bins": bins}, notes)


def entity_f1(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """F1 of whole entities, 0..1, as seqeval counts by default; details: precision, recall, types, and F1 where only
    what B begins is an entity (seqeval's strict mode of IOB2)."""
    predicted, right = rows.tag_pairs("entity_f1")
    figures = entity_figures(right, predicted)
    names = ("precision", "recall", "macro_f1", "strict_f1", "accuracy", "types")
    notes = []
    if not figures["scheme"]:
        notes.append("tags without a scheme (B-, I-, O): each word is an entity of its own")
    elif not sum(figures["row_entities"]):
        notes.append("neither side has an entity")
    signature = Signature.parse(figures["signatures"]["f1"])
    figure = RowFigures.of(figures["row_right"], figures["row_entities"])
    return Measurement(figures["f1"], figure, signature, {name: figures[name] for name in names}, notes)


def _signature(name: str) -> Signature:
    known = signatures()
    return Signature.parse(known[name]) if name in known else Signature.of_library("scikit-learn", name)


def _accuracy(predicted: Sequence[str], right: Sequence[str]) -> RowFigures:
    return RowFigures.of([float(ours == theirs) for ours, theirs in zip(predicted, right, strict=True)])


def _labels(rows: PredictedRows, predicted: Sequence[str], right: Sequence[str]) -> list[str]:
    return list(rows.labels) or sorted({*predicted, *right})


def _unknown_labels(predicted: Sequence[str], right: Sequence[str]) -> list[str]:
    """That predictions are no label of any reference, as where a model wrote a sentence."""
    known = set(right)
    unknown = [label for label in predicted if label not in known]
    if not unknown:
        return []
    shown = list_names([repr(label) for label in dict.fromkeys(unknown)], 3)
    return [f"{count_of(len(unknown), 'prediction')} that no reference has, wrong each: {shown}"]


def _counts(predicted: Sequence[str], right: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """(N, 3C) of each label whether it was predicted rightly, predicted, and right."""
    given, expected = (np.array([[text == label for label in labels] for text in side]) for side in (predicted, right))
    return np.concatenate([given & expected, given, expected], axis=1).astype(np.float64)


def _weighted_f1(sums: np.ndarray) -> np.ndarray:
    """(R, 3C) -> (R,) F1 of the labels, weighted by how often each is right."""
    hits, given, expected = np.split(sums, 3, axis=1)
    scores = 2 * hits / np.maximum(given + expected, 1)
    return (scores * expected).sum(1) / np.maximum(expected.sum(1), 1)


def _matthews(sums: np.ndarray) -> np.ndarray:
    """(R, 3C) -> (R,) Matthews' correlation (Gorodkin 2004, equation 8)."""
    hits, given, expected = np.split(sums, 3, axis=1)
    rows = expected.sum(1)
    covariance = hits.sum(1) * rows - (given * expected).sum(1)
    spread = (rows**2 - (given**2).sum(1)) * (rows**2 - (expected**2).sum(1))
    return np.where(spread > 0, covariance / np.sqrt(np.maximum(spread, 1e-300)), 0.0)


def _probabilities(name: str, rows: PredictedRows) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """The labels, (N, C) probabilities, (N, C) whether a row has the label, and what is to be said of them.

    Raises:
        InputError: the rows have no probabilities.
    """
    if not rows.probabilities:
        hint = "give fields probability_LABEL, or an object probabilities; lmworks predict MODEL FILE --out does"
        raise InputError(f"{name} needs the probability of each label", "predictions", hint)
    right = rows.single_references(name)
    labels = sorted({*right, *(label for row in rows.probabilities for label in row)})
    values = np.array([[float(row.get(label, 0.0)) for label in labels] for row in rows.probabilities])
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise InputError("a probability is no finite number", rows.place(row), "correct the row")
    occurs = np.array([[text == label for label in labels] for text in right])
    without = sum(text not in row for text, row in zip(right, rows.probabilities, strict=True))
    notes = [f"{count_of(without, 'row')} whose right label has no probability: 0 each"] if without else []
    return labels, values, occurs, notes
