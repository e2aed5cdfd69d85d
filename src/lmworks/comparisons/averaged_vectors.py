"""A classifier of texts by the average of their words' vectors: word2vec on the training texts, logistic regression.

What a ladder puts between counts of words and networks. The vectors are saved as a text file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.files import make_folder
from lmworks.baselines.train_vectors import train
from lmworks.baselines.vector_settings import VectorSettings
from lmworks.baselines.word_vectors import WordVectors

VECTORS = "vectors.txt"
SETTINGS: dict[str, Any] = {"architecture": "skip-gram", "vector_size": 100, "epochs": 10, "min_count": 2}
MOST_ITERATIONS = 1000


class AveragedVectors:
    """Vectors of words, and a linear classifier of their averages.

    Attributes:
        labels: C names, sorted.
        parameters: numbers in the vectors and in the classifier.
    """

    def __init__(self, vectors: WordVectors, linear: Any) -> None:
        self._vectors, self._linear = vectors, linear
        self.labels = [str(label) for label in linear.classes_]
        self.parameters = len(vectors) * vectors.size + linear.coef_.size + linear.intercept_.size

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[str], **changes: Any) -> AveragedVectors:
        """Learn vectors and labels from N texts with N labels.

        Args:
            texts, labels: N each.
            **changes: of SETTINGS: fields of VectorSettings.

        Raises:
            InputError: gensim is missing, too few words occur twice, or every label is the same.
        """
        from sklearn.linear_model import LogisticRegression

        if len(set(labels)) < 2:
            raise InputError("every row to train on has the same label", "labels", "add rows with other labels")
        vectors = train(texts, VectorSettings.model_validate({**SETTINGS, **changes})).vectors
        linear = LogisticRegression(C=10.0, max_iter=MOST_ITERATIONS).fit(_averages(vectors, texts), list(labels))
        return cls(vectors, linear)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each text; of one without a known word, the label that no evidence favours."""
        return [str(label) for label in self._linear.predict(_averages(self._vectors, texts))]

    def save(self, folder: Path) -> None:
        """Write the vectors."""
        make_folder(folder)
        self._vectors.save(folder / VECTORS)


def _averages(vectors: WordVectors, texts: Sequence[str]) -> np.ndarray:
    """(N, size): the averages, each of length one where it is not zero, so that long and short texts weigh alike."""
    averages = np.asarray(vectors.average(texts), dtype=np.float64)
    lengths = np.linalg.norm(averages, axis=1, keepdims=True)
    return averages / np.where(lengths > 0, lengths, 1.0)
