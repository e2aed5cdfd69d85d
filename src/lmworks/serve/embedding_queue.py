"""Requests for vectors of texts by one model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmworks.base.errors import InputError
from lmworks.generate.text_vectors import pooled_vectors, pooling_of, text_ids
from lmworks.language_model.model import LanguageModel
from lmworks.serve.text_queue import TextQueue


class EmbeddingQueue(TextQueue):
    """The requests for vectors; their texts are token ids, their results (E,) float32 each.

    Args:
        model: computes; its network, or the native engine of a prepared encoder, is used by the worker alone.
        queue_size: requests that may wait.
    """

    def __init__(self, model: LanguageModel, queue_size: int) -> None:
        super().__init__(self._vectors, len, queue_size)
        self._tokenizer, self._states, self._way = model.tokenizer, model.text_states(), pooling_of(own=model.pooling)

    def ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text as the model reads it; any thread may call.

        Raises:
            InputError: a text is empty or too long.
        """
        ids, cut = text_ids(self._states.context, self._tokenizer, texts, self._way)
        if cut:
            longest = max(map(len, ids))
            fault = f"{cut} of {len(texts)} texts are longer than the {longest} tokens that it reads"
            raise InputError(fault, "", f"divide texts into parts of at most {longest} tokens")
        return ids

    def _vectors(self, ids: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return list(pooled_vectors(self._states, ids, self._way))
