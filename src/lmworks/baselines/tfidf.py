"""Classifiers of texts by counts of words or characters: bag of words and TF-IDF with naive Bayes, logistic regression
or a linear support vector machine, and the majority class.

scikit-learn trains (baselines/tfidf_training); predictions are computed here, from the arrays that are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmworks.base.errors import InputError, as_list, check_type
from lmworks.baselines import tfidf_folder, tfidf_training
from lmworks.baselines.tfidf_features import features, ngrams
from lmworks.baselines.tfidf_settings import TfidfSettings, settings_of
from lmworks.baselines.tfidf_training import FittedClassifier
from lmworks.evaluate.prediction import Prediction, logistic, single_label_predictions, softmax
from lmworks.text.cleaning import clean, steps_of

CHUNK = 1000  # texts whose features are held at a time
HEAVIEST = 10  # words of each label
TEXTS_HINT = "give a list of texts"


class TextClassifier:
    """A classifier of texts by counts of words or characters.

    Attributes:
        settings: how texts are cleaned and counted, and what was learned from the counts.
        notes: what a person should know of its training.
    """

    def __init__(self, fitted: FittedClassifier, settings: TfidfSettings) -> None:
        self.settings, self.notes = settings, list(fitted.notes)
        self._fitted = fitted
        self._columns = {term: column for column, term in enumerate(fitted.vocabulary)}
        self._steps = steps_of(settings.cleaning)

    @classmethod
    def fit(
        cls, texts: Sequence[str], labels: Sequence[str], settings: TfidfSettings | str = "tfidf-logreg"
    ) -> TextClassifier:
        """Learn labels from texts.

        Args:
            texts: N texts.
            labels: N labels.
            settings: or the name of a preset.

        Raises:
            InputError: texts and labels are not as many, every label is the same, or nothing is left to count.
        """
        texts = as_list(texts, str, "texts", TEXTS_HINT)
        labels = as_list(labels, str, "labels", "give a list of labels, each a text")
        if len(texts) != len(labels):
            fault = f"{len(texts)} texts and {len(labels)} labels"
            raise InputError(fault, "labels", "give one label for each text")
        chosen = settings_of(settings) if isinstance(settings, str) else settings
        check_type(chosen, TfidfSettings, "settings", "give TfidfSettings or the name of a preset")
        return cls(tfidf_training.fit(texts, labels, chosen), chosen)

    @property
    def labels(self) -> list[str]:
        """C names, sorted: the columns of the probabilities."""
        return self._fitted.labels

    @property
    def vocabulary(self) -> list[str]:
        """The F n-grams that are counted."""
        return self._fitted.vocabulary

    @property
    def parameters(self) -> int:
        """The number of weights."""
        fitted = self._fitted
        return sum(array.size for array in (fitted.weight, fitted.bias, fitted.idf, fitted.platt) if array is not None)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(N, C) probabilities of the labels, each row adding up to 1."""
        texts = as_list(texts, str, "texts", TEXTS_HINT)
        parts = [self._probabilities(texts[begin : begin + CHUNK]) for begin in range(0, len(texts), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)))

    def _probabilities(self, texts: list[str]) -> np.ndarray:
        fitted = self._fitted
        counted = features(texts, self._columns, fitted.idf, self.settings, self._steps)
        scores = counted.times(fitted.weight) + fitted.bias
        if fitted.link == "softmax":
            return softmax(scores)
        if fitted.platt is not None:
            scores = -(fitted.platt[0] * scores + fitted.platt[1])
        shares = logistic(scores)
        if shares.shape[1] == 1:
            return np.concatenate([1.0 - shares, shares], axis=1)
        total = shares.sum(axis=1, keepdims=True)
        return np.where(total > 0, shares / np.where(total > 0, total, 1.0), 1.0 / len(self.labels))

    def count(self, texts: Sequence[str]) -> int:
        """How many n-grams the texts have, those that are not in the vocabulary among them."""
        return sum(len(ngrams(clean(text, self._steps), self.settings)) for text in texts)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """The likeliest label of each text, with the probabilities of all."""
        return single_label_predictions(self.probabilities(texts), self.labels)

    def heaviest_words(self, count: int = HEAVIEST) -> dict[str, list[tuple[str, float]]]:
        """Label -> the n-grams that speak most for it, with their weights; only positive ones.

        Of logistic regression and support vector machines these are the weights themselves; of naive Bayes the
        log-probability of the n-gram with this label, less its mean over the other labels.
        """
        if not self.vocabulary:
            return {}
        weight = self._fitted.weight
        if len(weight) == 1:
            weight = np.concatenate([-weight, weight])
        elif self.settings.classifier == "naive_bayes":
            weight = weight - (weight.sum(axis=0) - weight) / (len(weight) - 1)
        words: dict[str, list[tuple[str, float]]] = {}
        for label, row in zip(self.labels, weight, strict=True):
            order = np.argsort(-row, kind="stable")[:count]
            words[label] = [(self.vocabulary[column], float(row[column])) for column in order if row[column] > 0]
        return words

    def save(self, folder: str | Path) -> Path:
        """Write config.json, vocabulary.json and model.safetensors; gives the folder.

        Raises:
            InputError: no room, or the folder cannot be written.
        """
        tfidf_folder.write(Path(folder), self._fitted, self.settings)
        return Path(folder)

    @classmethod
    def open(cls, folder: str | Path) -> TextClassifier:
        """Open what :meth:`save` wrote.

        Raises:
            InputError: a file is missing or damaged.
        """
        return cls(*tfidf_folder.read(Path(folder)))

    def __repr__(self) -> str:
        return f"TextClassifier({self.settings.classifier}, labels {self.labels!r}, {len(self.vocabulary):,} n-grams)"
