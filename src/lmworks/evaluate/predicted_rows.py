"""What a model predicted beside what is right, row by row, as metrics ask for it. Knows no metric and no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lmworks.base.errors import InputError
from lmworks.evaluate.metric_score import Signature
from lmworks.evaluate.row_figures import RowFigure
from lmworks.text.tags import Tags

LIKELIHOODS = ("nats", "tokens", "bytes", "characters")
"""Numbers of a row that say how likely its text is to a model, as ``lmworks score --json`` writes them."""
FEWEST_LABELLED = 10
"""Rows from which on labels are refused of which most rows have one of their own."""
TEXT_METRICS_HINT = "for texts: --metrics bleu,chrf,exact_match,token_f1"


@dataclass(frozen=True)
class MetricOptions:
    """What may be chosen of metrics; all of it stands in their signatures.

    Attributes:
        lowercase: BLEU, chrF, exact match and the metrics of variety read texts in lower case.
        tokenize: sacrebleu's tokenizer, of BLEU, METEOR and the metrics of variety.
        stem: ROUGE compares the stems of words.
        positive: the label whose areas under ROC and precision-recall curve are computed; None: the mean of all.
    """

    lowercase: bool = False
    tokenize: str = "13a"
    stem: bool = False
    positive: str | None = None


class Measurement(NamedTuple):
    """A metric of some rows, before its interval.

    Attributes:
        value: as its reference implementation gives it; NaN where the rows have none.
        figure: the same by row, to be resampled.
        signature: how it was computed.
        details: what it consists of, as JSON.
        notes: what a reader must know of these rows.
    """

    value: float
    figure: RowFigure
    signature: Signature
    details: Mapping[str, Any] = {}
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class PredictedRows:
    """N rows.

    Attributes:
        predicted: the texts, labels or numbers that were predicted, written out; of tags "".
        references: of each row what is right, at least one; empty where there are none.
        places: where each prediction stands, for messages; may be empty.
        reference_places: where each reference stands.
        tags: predicted tags of the words of each row, where they were given as lists.
        reference_tags: the right ones.
        probabilities: of each row the probability of each label.
        likelihoods: name (LIKELIHOODS) -> (N,) numbers.
        scored_by: what computed the likelihoods, as the signature of a score says it; may be empty.
        labels: all labels that occur, here or in predictions to compare with; empty: those here.
    """

    predicted: Sequence[str] = ()
    references: Sequence[Sequence[str]] = ()
    places: Sequence[str] = ()
    reference_places: Sequence[str] = ()
    tags: Sequence[Tags] = ()
    reference_tags: Sequence[Tags] = ()
    probabilities: Sequence[Mapping[str, float]] = ()
    likelihoods: Mapping[str, np.ndarray] = field(default_factory=dict)
    scored_by: str = ""
    labels: Sequence[str] = ()

    def __len__(self) -> int:
        columns: list[Sequence[Any] | np.ndarray] = [self.predicted, self.tags, self.probabilities]
        return max(map(len, [*columns, *self.likelihoods.values()]))

    def place(self, row: int) -> str:
        """Where a prediction stands."""
        return self.places[row] if self.places else f"row {row + 1}"

    def reference_place(self, row: int) -> str:
        """Where a reference stands."""
        return self.reference_places[row] if self.reference_places else f"row {row + 1}"

    @property
    def reference_count(self) -> str:
        """How many references a row has, as signatures say it: a number, or ``var``."""
        counts = {len(listed) for listed in self.references}
        return str(counts.pop()) if len(counts) == 1 else "var"

    def single_references(self, metric: str) -> list[str]:
        """The one reference of each row.

        Raises:
            InputError: a row has several.
        """
        for row, listed in enumerate(self.references):
            if len(listed) > 1:
                fault = f"{metric} compares with one reference; this row has {len(listed)}"
                raise InputError(fault, self.reference_place(row), TEXT_METRICS_HINT)
        return [listed[0].strip() for listed in self.references]

    def label_pairs(self, metric: str) -> tuple[list[str], list[str]]:
        """Predicted and right label of each row.

        Raises:
            InputError: what stands there are no labels.
        """
        right = self.single_references(metric)
        different = len(set(right))
        if len(right) >= FEWEST_LABELLED and different > len(right) / 2:
            fault = f"{metric} counts labels, and {len(right):,} rows have {different:,} different references"
            raise InputError(fault, "references", TEXT_METRICS_HINT)
        return [text.strip() for text in self.predicted], right

    def number_pairs(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and right number of each row, (N,) each.

        Raises:
            InputError: something is no number.
        """
        right = self.single_references(metric)
        places = [self.place, self.reference_place]
        sides = [
            np.array([_number(text, metric, place(row)) for row, text in enumerate(texts)])
            for texts, place in zip((self.predicted, right), places, strict=True)
        ]
        return sides[0], sides[1]

    def tag_pairs(self, metric: str) -> tuple[Sequence[Tags], Sequence[Tags]]:
        """Predicted and right tags of each row; a text is split at its spaces.

        Raises:
            InputError: a row has other numbers of both.
        """
        predicted = self.tags or [text.split() for text in self.predicted]
        right = self.reference_tags or [text.split() for text in self.single_references(metric)]
        for row, (ours, theirs) in enumerate(zip(predicted, right, strict=True)):
            if len(ours) != len(theirs):
                fault = f"{len(ours)} predicted tags, and the reference has {len(theirs)}"
                raise InputError(fault, self.place(row), "one tag a word, between spaces, on both sides")
        return predicted, right

    def likelihood(self, name: str, metric: str) -> np.ndarray:
        """(N,) one of LIKELIHOODS.

        Raises:
            InputError: the rows do not have it, or none of them has any.
        """
        if name not in self.likelihoods:
            hint = "lmworks score MODEL --file TEXT --lines --json > scores.json writes it"
            raise InputError(f"{metric} needs the field {name!r} in each row", "predictions", hint)
        values = self.likelihoods[name]
        if name != "nats" and not values.sum():
            raise InputError(f"{metric} divides by {name}, of which the rows have none", "predictions", "score texts")
        return values


def _number(text: str, metric: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        fault = f"{metric} compares numbers, and {text[:40]!r} is none"
        raise InputError(fault, place, "correct the row, or choose another metric with --metrics")
    return value
