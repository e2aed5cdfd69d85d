"""What a classifier says of a text, and the interface of every classifier of texts. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

THRESHOLD = 0.5
"""From this probability on a text has a label, where it may have several."""
SHOWN_MISTAKES = 10
"""Mistakes that an evaluation keeps, the most confident ones."""


class Prediction(NamedTuple):
    """What a classifier says of a text.

    Attributes:
        label: the likeliest label; of a classifier that gives a text any number of labels, all that are likely,
            joined by commas.
        probabilities: label -> probability, of all labels.
        cut_tokens: tokens at the end of the text that were not read, since it is longer than the model's context.
    """

    label: str
    probabilities: dict[str, float]
    cut_tokens: int = 0


class PredictedValue(NamedTuple):
    """What a regression says of a text.

    Attributes:
        value: in the unit of the training rows.
        cut_tokens: as of a :class:`Prediction`.
    """

    value: float
    cut_tokens: int = 0


@runtime_checkable
class Classifier(Protocol):
    """Gives each text one of its labels: a network with a classification head, or a model of word counts.

    Attributes:
        labels: C names, in the order of the columns of the probabilities.
    """

    @property
    def labels(self) -> Sequence[str]: ...

    def predict(self, texts: Sequence[Any]) -> Sequence[Prediction | PredictedValue]:
        """What it says of each text; of each pair of texts, where it takes such."""
        ...


def single_label_predictions(probabilities: np.ndarray, labels: Sequence[str]) -> list[Prediction]:
    """Predictions of a classifier that gives a text one label: the likeliest.

    Args:
        probabilities: (N, C).
        labels: C names.
    """
    return [
        Prediction(labels[best], dict(zip(labels, row, strict=True)))
        for best, row in zip(probabilities.argmax(axis=1).tolist(), probabilities.tolist(), strict=True)
    ]


def multi_label_predictions(probabilities: np.ndarray, labels: Sequence[str]) -> list[Prediction]:
    """Predictions of a classifier that gives a text any number of labels: those of at least THRESHOLD.

    Args:
        probabilities: (N, C), each between 0 and 1.
        labels: C names.
    """
    return [
        Prediction(
            ", ".join(label for label, share in zip(labels, row, strict=True) if share >= THRESHOLD),
            dict(zip(labels, row, strict=True)),
        )
        for row in probabilities.tolist()
    ]


def probability_matrix(predicted: Sequence[Prediction], labels: Sequence[str]) -> np.ndarray:
    """(N, C) probabilities in the order of ``labels``; a label that the classifier does not know has none."""
    rows = [[prediction.probabilities.get(label, 0.0) for label in labels] for prediction in predicted]
    return np.array(rows, dtype=np.float64).reshape(len(predicted), len(labels))


def softmax(scores: np.ndarray) -> np.ndarray:
    """(..., C) scores -> probabilities of C classes, which add up to 1."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def logistic(scores: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-score)) of each score, without overflow."""
    small = np.exp(-np.abs(scores))
    return np.asarray(np.where(scores >= 0, 1.0, small) / (1.0 + small))
