"""Requests for what a classifier or a regression says of texts, or of pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lmworks.base.errors import InputError
from lmworks.evaluate.prediction import PredictedValue, Prediction
from lmworks.serve.text_queue import TextQueue
from lmworks.text.tokenizer import Tokenizer

CHARACTERS_OF_TOKEN = 4  # about; decides how many texts are computed in one turn
Parts = Sequence[str]
"""An input: one text, or two."""


class Predictor(Protocol):
    """A model with a head for texts, or one that a run taught to write labels."""

    @property
    def labels(self) -> list[str]: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def predict(self, texts: Sequence[Parts | str]) -> Sequence[Prediction | PredictedValue]: ...


class LabelQueue(TextQueue):
    """The requests for labels or values; their texts are :data:`Parts`, their results as the model predicts them.

    Args:
        model: predicts; used by the worker alone.
        queue_size: requests that may wait.

    Attributes:
        labels: in the order of the probabilities; empty where the model gives a value.
    """

    def __init__(self, model: Predictor, queue_size: int) -> None:
        super().__init__(self._predictions, _size, queue_size)
        self._model, self.labels = model, model.labels

    def tokens(self, texts: Sequence[Parts]) -> int:
        """Tokens of all texts, special ones left out; any thread may call.

        Raises:
            InputError: a text has a character that UTF-8 cannot write.
        """
        return sum(map(len, self._model.tokenizer.encode_many([part for parts in texts for part in parts])))

    def _predictions(self, texts: Sequence[Parts]) -> list[Prediction | PredictedValue]:
        predictions = list(self._model.predict([parts[0] if len(parts) == 1 else parts for parts in texts]))
        for parts, prediction in zip(texts, predictions, strict=True):
            if prediction.cut_tokens:
                fault = f"{parts[0][:40]!r} is {prediction.cut_tokens} tokens longer than the model reads"
                raise InputError(fault, "", "shorten it, or divide it into parts")
        return predictions


def _size(parts: Parts) -> int:
    return sum(map(len, parts)) // CHARACTERS_OF_TOKEN
