"""Metrics of labels, probabilities and tags are scikit-learn's and seqeval's, over all rows and over resampled ones."""

from __future__ import annotations

import numpy as np
import pytest
from damaged_texts import relabelled
from sklearn import metrics as theirs

from lmworks.base.errors import InputError
from lmworks.evaluate.classification import calibration, multi_label_figures, single_label_figures
from lmworks.evaluate.metric_registry import METRICS
from lmworks.evaluate.predicted_rows import Measurement, MetricOptions, PredictedRows

ROWS, LABELS = 90, ["neg", "neutral", "pos"]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "O", "O"]


def labels() -> tuple[list[str], list[str]]:
    right = list(np.random.default_rng(0).choice(LABELS, ROWS, p=[0.2, 0.1, 0.7]))
    return relabelled([str(label) for label in right], 1), [str(label) for label in right]


def probabilities(right: list[str]) -> list[dict[str, float]]:
    dice = np.random.default_rng(2)
    numbers = np.round(dice.dirichlet(np.ones(3), len(right)), 1)  # rounded, so that some are equal
    numbers += 0.5 * np.array([[label == name for name in LABELS] for label in right]) * dice.random((len(right), 1))
    return [dict(zip(LABELS, (row / row.sum()).tolist(), strict=True)) for row in numbers]


def made() -> PredictedRows:
    predicted, right = labels()
    return PredictedRows(predicted, [[label] for label in right], probabilities=probabilities(right))


def chosen(rows: PredictedRows, places: np.ndarray) -> PredictedRows:
    return PredictedRows(
        [rows.predicted[row] for row in places],
        [rows.references[row] for row in places],
        probabilities=[rows.probabilities[row] for row in places],
    )


def measured(name: str, rows: PredictedRows, **options) -> Measurement:
    return METRICS[name].measure(rows, MetricOptions(**options))


def test_scores_are_scikit_learns() -> None:
    rows, (predicted, right) = made(), labels()
    assert measured("accuracy", rows).value == theirs.accuracy_score(right, predicted)
    for average in ("macro", "micro", "weighted"):
        expected = theirs.f1_score(right, predicted, average=average)
        assert measured(f"{average}_f1", rows).value == pytest.approx(expected)
    assert measured("mcc", rows).value == pytest.approx(theirs.matthews_corrcoef(right, predicted))
    numbers = np.array([[row[label] for label in LABELS] for row in rows.probabilities])
    assert measured("roc_auc", rows).value == pytest.approx(theirs.roc_auc_score(right, numbers, multi_class="ovr"))
    occurs = np.array(right)[:, None] == np.array(LABELS)
    assert measured("pr_auc", rows).value == pytest.approx(theirs.average_precision_score(occurs, numbers))
    one = measured("pr_auc", rows, positive="neutral")
    assert one.value == pytest.approx(theirs.average_precision_score(occurs[:, 1], numbers[:, 1]))
    assert dict(one.signature.settings) == {"average": "label neutral"}
    error = calibration(numbers.max(1), occurs[np.arange(ROWS), numbers.argmax(1)])
    result = measured("calibration_error", rows)
    assert result.value == error.error > 0
    assert sum(each["rows"] for each in result.details["bins"]) == ROWS


NAMES = ["accuracy", "macro_f1", "micro_f1", "weighted_f1", "mcc", "roc_auc", "pr_auc", "calibration_error"]


@pytest.mark.parametrize("name", NAMES)
def test_resampled_rows_have_the_score_of_these_rows(name: str) -> None:
    rows, dice = made(), np.random.default_rng(3)
    result = measured(name, rows)
    assert result.figure.value == pytest.approx(result.value)
    for _ in range(4):
        places = dice.integers(0, ROWS, ROWS)
        weights = np.bincount(places, minlength=ROWS)[None].astype(float)
        assert result.figure.resampled(weights)[0] == pytest.approx(measured(name, chosen(rows, places)).value)


@pytest.mark.parametrize("name", ["macro_f1", "weighted_f1", "mcc"])
def test_labels_that_a_resample_lacks_do_not_count(name: str) -> None:
    rows = PredictedRows(["a", "b", "c", "a"], [["a"], ["b"], ["b"], ["c"]])
    figure = measured(name, rows).figure
    some = PredictedRows(["a", "b", "a"], [["a"], ["b"], ["a"]])
    assert figure.resampled(np.array([[2.0, 1.0, 0.0, 0.0]]))[0] == pytest.approx(measured(name, some).value)


def test_one_label_alone_has_no_correlation_and_no_area() -> None:
    rows = PredictedRows(["a"] * 3, [["a"]] * 3, probabilities=[{"a": 0.9, "b": 0.1}] * 3)
    assert measured("mcc", rows).value == measured("mcc", rows).figure.value == 0.0
    with pytest.raises(InputError, match="rows with a label and rows without"):
        measured("roc_auc", rows)


def test_predictions_that_are_no_label_are_counted() -> None:
    rows = PredictedRows(["yes", "Yes, it is.", "no"], [["yes"], ["yes"], ["no"]])
    assert measured("accuracy", rows).notes == ["1 prediction that no reference has, wrong each: 'Yes, it is.'"]


def test_what_does_not_fit_is_refused() -> None:
    texts = PredictedRows([f"text {n}" for n in range(12)], [[f"text {n}"] for n in range(12)])
    with pytest.raises(InputError, match="12 rows have 12 different references"):
        measured("macro_f1", texts)
    with pytest.raises(InputError, match="needs the probability of each label"):
        measured("roc_auc", PredictedRows(["a", "b"], [["a"], ["b"]]))
    with pytest.raises(InputError, match="no label 'maybe'"):
        measured("roc_auc", made(), positive="maybe")
    scores = PredictedRows(["a"], [["a"]], probabilities=[{"a": 3.0, "b": -1.0}])
    with pytest.raises(InputError, match="row 1: calibration is of probabilities"):
        measured("calibration_error", scores)
    with pytest.raises(InputError, match="row 1: accuracy compares with one reference"):
        measured("accuracy", PredictedRows(["a"], [["a", "b"]]))


def tagged(seed: int) -> list[list[str]]:
    dice = np.random.default_rng(seed)
    return [[TAGS[n] for n in dice.integers(0, len(TAGS), dice.integers(1, 12))] for _ in range(30)]


def test_entity_f1_is_seqevals() -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    right, dice = tagged(4), np.random.default_rng(5)
    predicted = [[tag if dice.random() < 0.8 else "O" for tag in tags] for tags in right]
    result = measured("entity_f1", PredictedRows(tags=predicted, reference_tags=right))
    assert result.value == pytest.approx(seqeval.f1_score(right, predicted))
    assert result.figure.value == pytest.approx(result.value)
    assert result.details["precision"] == pytest.approx(seqeval.precision_score(right, predicted))
    assert result.details["macro_f1"] == pytest.approx(seqeval.f1_score(right, predicted, average="macro"))
    texts = PredictedRows([" ".join(tags) for tags in predicted], [[" ".join(tags)] for tags in right])
    assert measured("entity_f1", texts).value == result.value


def test_tags_of_other_lengths_are_named_by_their_row() -> None:
    with pytest.raises(InputError, match="row 2: 1 predicted tags, and the reference has 2"):
        measured("entity_f1", PredictedRows(["O", "O"], [["O"], ["O B-PER"]]))


def test_a_classifiers_evaluation_has_the_signatures_of_these_metrics() -> None:
    numbers = np.eye(3)[[0, 1, 2, 2]] * 0.8 + 0.1
    figures = single_label_figures(numbers, np.array([0, 1, 2, 1]), LABELS)
    for name in ("accuracy", "macro_f1", "micro_f1", "roc_auc", "calibration_error"):
        assert str(measured(name, made()).signature) == figures["signatures"][name]
    several = multi_label_figures(numbers, numbers > 0.5, LABELS)
    assert several["signatures"]["accuracy"] != figures["signatures"]["accuracy"]
