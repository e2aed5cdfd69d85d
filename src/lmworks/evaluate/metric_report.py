"""Scores of predictions, from files or lists: what ``lmworks metrics`` prints and ``lmworks.measure`` gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.evaluate import metric_registry
from lmworks.evaluate.metric_registry import Difference
from lmworks.evaluate.metric_score import MetricScore
from lmworks.evaluate.predicted_rows import MetricOptions
from lmworks.evaluate.prediction_files import Fields, Source, read_baseline, read_rows
from lmworks.evaluate.significance import LEVEL, PairedTest
from lmworks.evaluate.text_metrics import tokenizer
from lmworks.text.rows import DataSettings


@dataclass(frozen=True)
class MetricReport:
    """Scores of predictions.

    Attributes:
        rows: how many there are.
        scores: by metric.
        differences: from the baseline, by metric; empty without one.
        notes: how the rows were read, and which metrics were left out.
    """

    rows: int
    scores: list[MetricScore]
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        scores = [each.as_json() for each in self.scores]
        if self.differences:
            differences = [asdict(each) | {"baseline": each.baseline.as_json()} for each in self.differences]
            scores = [score | {"difference": each} for score, each in zip(scores, differences, strict=True)]
        return {"rows": self.rows, "scores": scores, "notes": self.notes}


def measure(
    predictions: Source,
    references: Source | Sequence[Path] | None = None,
    *,
    metrics: Sequence[str] | None = None,
    baseline: Source | None = None,
    test: PairedTest | None = None,
    options: MetricOptions | None = None,
    fields: Fields | None = None,
    settings: DataSettings | None = None,
    seed: int = 0,
    level: float = LEVEL,
) -> MetricReport:
    """Scores of predictions, with signatures and intervals.

    Args:
        predictions: a file, or a list of texts (of tags: of lists of texts).
        references: likewise; a list within a list has several references of its row, and so have several files, as a
            list of paths. None: columns beside the predictions, or none at all.
        metrics: their names; None: those that are usual for such rows, of which those that do not fit are left out.
        baseline: other predictions of the same rows, with which each score is compared.
        test: mcnemar, bootstrap or permutation; None: what suits each metric.
        options: lower case, tokenizer, stems, the positive label.
        fields: which columns of files are read.
        settings: how files of columns are read.
        seed: of the resampling.
        level: of intervals.

    Raises:
        InputError: files or lists of other lengths, an empty reference, a metric that there is not or that does not
            fit the rows.
    """
    if options is not None:  # a wrong option is refused, where metrics that nobody named would be left out
        tokenizer(options.tokenize)
    names = None if metrics is None else [metric_registry.metric_name(name) for name in metrics]
    rows, notes = read_rows(predictions, references, fields, settings)
    other = None if baseline is None else read_baseline(baseline, rows, fields, settings)
    if names is None:
        kind = metric_registry.kind_of(rows)
        names = metric_registry.usual_metrics(kind)
        notes.append(f"read as {kind}, for which these metrics are usual; --metrics names others")
    scores, differences, faults = list[MetricScore](), list[Difference](), list[InputError]()
    for name in dict.fromkeys(names):
        try:
            if other is None:
                scores.append(metric_registry.score(name, rows, options, seed, level))
            else:
                score, difference = metric_registry.compare(name, rows, other, options, seed, level, test)
                scores.append(score)
                differences.append(difference)
        except InputError as error:
            if metrics is not None:
                raise
            faults.append(error)
            notes.append(f"without {name}: {error.fault} (hint: {error.hint})")
    if not scores:
        raise faults[0] if faults else InputError("no metric is named", "--metrics", "--metrics bleu,chrf")
    return MetricReport(len(rows), scores, metric_registry.corrected(differences), notes)
