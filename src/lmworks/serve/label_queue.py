"""Requests for what a classifier or a regression says of texts, or of pairs of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lmworks.base.errors import InputError
from lmworks.evaluate.prediction import Classifier, PredictedValue, Prediction
from lmworks.serve.text_queue import TextQueue

CHARACTERS_OF_TOKEN = 4  # about; decides how many texts are computed in one turn
Parts = Sequence[str]
"""An input: one text, or two."""


class LabelQueue(TextQueue):
    """The requests for labels or values; their texts are :data:`Parts`, their results as the model predicts them.

    Args:
        model: predicts; used by the worker alone.
        count: tokens of all of several texts, special ones left out; any thread may call.
        queue_size: requests that may wait.
        takes_pairs: whether an input may have two texts.

    Attributes:
        labels: in the order of the probabilities; empty where the model gives a value.
    """

    def __init__(
        self, model: Classifier, count: Callable[[list[str]], int], queue_size: int, takes_pairs: bool = True
    ) -> None:
        super().__init__(self._predictions, _size, queue_size)
        self._model, self._count, self._takes_pairs, self.labels = model, count, takes_pairs, list(model.labels)

    def tokens(self, texts: Sequence[Parts]) -> int:
        """Tokens of all texts, special ones left out; any thread may call.

        Raises:
            InputError: a text has a character that UTF-8 cannot write, or is one of two where the model reads one.
        """
        if not self._takes_pairs and any(len(parts) > 1 for parts in texts):
            raise InputError("the model labels single texts, and this is a pair", "", "give one text each")
        return self._count([part for parts in texts for part in parts])

    def _predictions(self, texts: Sequence[Parts]) -> list[Prediction | PredictedValue]:
        predictions = list(self._model.predict([parts[0] if len(parts) == 1 else parts for parts in texts]))
        for parts, prediction in zip(texts, predictions, strict=True):
            if prediction.cut_tokens:
                fault = f"{parts[0][:40]!r} is {prediction.cut_tokens} tokens longer than the model reads"
                raise InputError(fault, "", "shorten it, or divide it into parts")
        return predictions


def _size(parts: Parts) -> int:
    return sum(map(len, parts)) // CHARACTERS_OF_TOKEN
