"""The metrics by name, and scores of rows by them: with intervals, and beside other predictions of the same rows."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from lmworks.base.errors import InputError
from lmworks.evaluate import label_metrics, number_metrics, significance, text_metrics, text_variety
from lmworks.evaluate.metric_score import Better, MetricScore
from lmworks.evaluate.metrics import FEWEST_ROWS
from lmworks.evaluate.predicted_rows import Measurement, MetricOptions, PredictedRows
from lmworks.evaluate.row_figures import interval
from lmworks.evaluate.significance import LEVEL, PairedTest
from lmworks.text.tags import OUTSIDE, have_scheme

Reads = Literal["texts", "labels", "probabilities", "tags", "numbers", "texts alone", "likelihoods"]
"""What a metric is of; of ``texts alone`` and ``likelihoods`` no reference is asked for."""
WITHOUT_REFERENCES = ("texts alone", "likelihoods")


class Metric(NamedTuple):
    """A metric.

    Attributes:
        title: its name as a person reads it.
        reads: what it is of.
        measure: (rows, options) -> its measurement.
        better: whether higher or lower is better; None: neither.
        limits: its least and greatest value.
        is_usual: whether it is computed where no metric is named.
    """

    title: str
    reads: Reads
    measure: Callable[[PredictedRows, MetricOptions], Measurement]
    better: Better | None = "higher"
    limits: tuple[float, float] = (0.0, 1.0)
    is_usual: bool = True


PERCENT, UNBOUNDED, CORRELATION = (0.0, 100.0), (0.0, math.inf), (-1.0, 1.0)
METRICS = {
    "bleu": Metric("BLEU", "texts", text_metrics.bleu, limits=PERCENT),
    "chrf": Metric("chrF2", "texts", text_metrics.chrf, limits=PERCENT),
    "chrf++": Metric("chrF2++", "texts", text_metrics.chrf_plus_plus, limits=PERCENT, is_usual=False),
    "ter": Metric("TER", "texts", text_metrics.ter, "lower", UNBOUNDED),
    "rouge1": Metric("ROUGE-1", "texts", text_metrics.rouge("rouge1")),
    "rouge2": Metric("ROUGE-2", "texts", text_metrics.rouge("rouge2")),
    "rougeL": Metric("ROUGE-L", "texts", text_metrics.rouge("rougeL")),
    "rougeLsum": Metric("ROUGE-Lsum", "texts", text_metrics.rouge("rougeLsum"), is_usual=False),
    "meteor": Metric("METEOR", "texts", text_metrics.meteor, is_usual=False),
    "exact_match": Metric("exact match", "texts", text_metrics.exact_match),
    "squad_exact_match": Metric("exact match (SQuAD)", "texts", text_metrics.squad_exact_match, is_usual=False),
    "token_f1": Metric("token F1 (SQuAD)", "texts", text_metrics.token_f1),
    "accuracy": Metric("accuracy", "labels", label_metrics.accuracy),
    "macro_f1": Metric("macro-F1", "labels", label_metrics.f1("macro")),
    "micro_f1": Metric("micro-F1", "labels", label_metrics.f1("micro"), is_usual=False),
    "weighted_f1": Metric("weighted F1", "labels", label_metrics.f1("weighted")),
    "mcc": Metric("Matthews' correlation", "labels", label_metrics.matthews, limits=CORRELATION),
    "roc_auc": Metric("ROC-AUC", "probabilities", label_metrics.roc_auc),
    "pr_auc": Metric("PR-AUC", "probabilities", label_metrics.pr_auc),
    "calibration_error": Metric("calibration error", "probabilities", label_metrics.calibration_error, "lower"),
    "entity_f1": Metric("entity F1", "tags", label_metrics.entity_f1),
    "pearson": Metric("Pearson's r", "numbers", number_metrics.pearson, limits=CORRELATION),
    "spearman": Metric("Spearman's rho", "numbers", number_metrics.spearman, limits=CORRELATION),
    "distinct1": Metric("distinct-1", "texts alone", text_variety.distinct(1), None),
    "distinct2": Metric("distinct-2", "texts alone", text_variety.distinct(2), None),
    "distinct3": Metric("distinct-3", "texts alone", text_variety.distinct(3), None, is_usual=False),
    "self_bleu": Metric("self-BLEU", "texts alone", text_variety.self_bleu, None, PERCENT),
    "repetition": Metric("repetition", "texts alone", text_variety.repetition, None),
    "perplexity": Metric("perplexity", "likelihoods", number_metrics.perplexity, "lower", UNBOUNDED),
    "bits_per_byte": Metric("bits per byte", "likelihoods", number_metrics.bits("bytes"), "lower", UNBOUNDED),
    "bits_per_character": Metric(
        "bits per character", "likelihoods", number_metrics.bits("characters"), "lower", UNBOUNDED
    ),
}
OTHER_NAMES = {"ece": "calibration_error", "f1": "macro_f1", "em": "exact_match", "chrfpp": "chrf++"}
FEW_LABELS = 20
"""Where no metric is named, so few different references of many rows are labels."""
ROWS_PER_LABEL = 3


@dataclass(frozen=True)
class Difference:
    """A score beside that of other predictions of the same rows.

    Attributes:
        baseline: the score of the other predictions.
        value: the score minus the baseline's.
        interval: of the difference, by paired bootstrap; None where it was not computed.
        test: mcnemar, bootstrap or permutation; None with too few rows.
        p_value: of the test by itself.
        adjusted_p_value: after Holm's correction for all metrics that were tested together.
    """

    baseline: MetricScore
    value: float
    interval: tuple[float, float] | None = None
    test: str | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None


def metric_name(text: str) -> str:
    """The name of a metric as a person may write it: ``ROUGE-L``, ``rougeL`` and ``rouge_l`` are one.

    Raises:
        InputError: there is none; names those that there are.
    """
    plain = {_plain(name): name for name in METRICS} | OTHER_NAMES
    if (name := plain.get(_plain(text))) is not None:
        return name
    near = difflib.get_close_matches(_plain(text), plain, n=1)
    meant = f"did you mean {plain[near[0]]}? " if near else ""
    raise InputError(f"there is no metric {text!r}", "--metrics", f"{meant}There are {', '.join(METRICS)}")


def _plain(text: str) -> str:
    return text.strip().lower().replace("-", "").replace("_", "").replace(" ", "")


def kind_of(rows: PredictedRows) -> Reads:
    """What rows are, by their fields and references: of what the usual metrics are then computed."""
    if rows.likelihoods:
        return "likelihoods"
    if rows.tags:
        return "tags"
    if not rows.references:
        return "texts alone"
    if rows.probabilities:
        return "probabilities"
    if any(len(listed) > 1 for listed in rows.references):
        return "texts"
    right = [listed[0].strip() for listed in rows.references]
    words = {word for text in right for word in text.split()}
    if have_scheme(words) and words != {OUTSIDE}:
        return "tags"
    if len(set(right)) <= min(FEW_LABELS, len(right) / ROWS_PER_LABEL):
        return "labels"
    return "numbers" if all(map(_is_number, [*right, *rows.predicted])) else "texts"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def usual_metrics(kind: Reads) -> list[str]:
    """The metrics of rows of a kind where none is named; of probabilities those of labels too."""
    kinds = ("labels", "probabilities") if kind == "probabilities" else (kind,)
    return [name for name, metric in METRICS.items() if metric.reads in kinds and metric.is_usual]


def score(
    name: str, rows: PredictedRows, options: MetricOptions | None = None, seed: int = 0, level: float = LEVEL
) -> MetricScore:
    """The score of rows by a metric.

    Args:
        name: of the metric, as METRICS has it.
        rows: at least one.
        options: of the metric.
        seed: of the resampling for the interval; the same rows and seed give the same interval.
        level: of the interval.

    Raises:
        InputError: the metric does not fit the rows, or asks for a library that is not installed.
    """
    return _score(name, _measurement(name, rows, options), len(rows), seed, level)


def compare(
    name: str,
    rows: PredictedRows,
    baseline: PredictedRows,
    options: MetricOptions | None = None,
    seed: int = 0,
    level: float = LEVEL,
    test: PairedTest | None = None,
) -> tuple[MetricScore, Difference]:
    """The score of rows beside that of other predictions with the same references.

    Args:
        name, options, seed, level: as in :func:`score`.
        rows, baseline: as many rows, in the same order.
        test: None: McNemar's where rows are right or wrong, else the paired bootstrap.

    Raises:
        InputError: as in :func:`score`, or the test does not fit the metric.
    """
    if METRICS[name].reads == "labels":
        texts = [*rows.predicted, *baseline.predicted, *(text for listed in rows.references for text in listed)]
        labels = sorted({text.strip() for text in texts})
        rows, baseline = replace(rows, labels=labels), replace(baseline, labels=labels)
    ours, theirs = (_measurement(name, side, options) for side in (rows, baseline))
    scores = [_score(name, measured, len(rows), seed, level) for measured in (ours, theirs)]
    return scores[0], _difference(name, scores[1], ours, theirs, seed, level, test)


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """Differences that were tested together, their p-values corrected by Holm's method."""
    tested = [each.p_value for each in differences if each.p_value is not None]
    adjusted = iter(significance.holm(tested))
    return [each if each.p_value is None else replace(each, adjusted_p_value=next(adjusted)) for each in differences]


def _measurement(name: str, rows: PredictedRows, options: MetricOptions | None) -> Measurement:
    metric = METRICS[name]
    kind = kind_of(rows)
    has_predictions = bool(rows.predicted or (metric.reads == "tags" and rows.tags))
    if metric.reads != "likelihoods" and not has_predictions:
        fault = f"{name} is a metric of {metric.reads}, and the rows hold {kind}"
        raise InputError(fault, "--metrics", f"for these rows: {', '.join(usual_metrics(kind))}")
    has_references = bool(rows.references or (metric.reads == "tags" and rows.reference_tags))
    if metric.reads not in WITHOUT_REFERENCES and not has_references:
        hint = f"give REFERENCES; without them: --metrics {','.join(usual_metrics('texts alone'))}"
        raise InputError(f"{name} needs references", "references", hint)
    return metric.measure(rows, options or MetricOptions())


def _score(name: str, measured: Measurement, rows: int, seed: int, level: float) -> MetricScore:
    metric, value = METRICS[name], measured.value
    ends = interval(measured.figure, seed, level, metric.limits) if rows >= FEWEST_ROWS else None
    notes = list(measured.notes)
    if rows < FEWEST_ROWS:
        notes.append(f"no interval: fewer than {FEWEST_ROWS} rows")
    known = value if math.isfinite(value) else None
    return MetricScore(
        metric.title,
        known,
        measured.signature,
        rows,
        metric.better,
        ends if known is not None else None,
        level,
        measured.details,
        tuple(notes),
    )


def _difference(
    name: str,
    baseline: MetricScore,
    ours: Measurement,
    theirs: Measurement,
    seed: int,
    level: float,
    test: PairedTest | None,
) -> Difference:
    value = ours.value - theirs.value
    if baseline.rows < FEWEST_ROWS or not math.isfinite(value):
        return Difference(baseline, value)
    figures = {"predictions": ours.figure, "baseline": theirs.figure}
    try:
        compared = significance.compare(figures, "higher", "baseline", seed, level, test=test)
    except ValueError as error:
        raise InputError(str(error), f"--test {test} of {name}", "leave --test out, or name other metrics") from error
    (found,) = (each for each in compared.contenders if each.name == "predictions")
    low, high = found.difference_interval or (math.nan, math.nan)
    return Difference(baseline, value, (low, high), found.test, found.p_value)
