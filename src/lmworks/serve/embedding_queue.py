"""Requests for vectors of texts: a few texts of each in turn, so that a long list does not stall others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from lmworks.base.errors import InputError
from lmworks.generate.embed import pooling_of, text_ids, vectors_of
from lmworks.language_model.model import LanguageModel
from lmworks.serve.request import EmbeddingRequest, QueueFull, Vectors

GROUP_TOKENS = 1024
"""Tokens of the texts that are computed in one turn, if one text has no more."""
RETRY_AFTER = 1  # seconds


class EmbeddingQueue:
    """The requests for vectors by one model.

    Args:
        model: computes; its network is used by :meth:`turn` alone.
        queue_size: requests that may wait.

    Attributes:
        wake: called when there is something to do.
    """

    def __init__(self, model: LanguageModel, queue_size: int) -> None:
        self._model, self.queue_size = model, queue_size
        self._way = pooling_of(own=model.pooling)
        self.wake: Callable[[], None] = lambda: None
        self._lock = threading.Lock()  # of _requests
        self._requests: deque[EmbeddingRequest] = deque()

    def ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text as the model reads it; any thread may call.

        Raises:
            InputError: a text is empty or too long.
        """
        model = self._model
        ids, cut = text_ids(model.network, model.tokenizer, texts, self._way)
        if cut:
            longest = max(map(len, ids))
            hint = f"divide texts into parts of at most {longest} tokens"
            raise InputError(
                f"{cut} of {len(texts)} texts are longer than the {longest} tokens that it reads", "", hint
            )
        return ids

    def submit(self, request: EmbeddingRequest) -> None:
        """Let a request wait; any thread may call.

        Raises:
            QueueFull: too many wait already.
        """
        with self._lock:
            if len(self._requests) >= self.queue_size:
                raise QueueFull(RETRY_AFTER)
            self._requests.append(request)
        self.wake()

    def waiting(self) -> int:
        """Requests that are not done."""
        return len(self._requests)

    def turn(self) -> bool:
        """Compute some vectors of the request whose turn it is.

        Returns:
            Whether there is more to do.
        """
        request = self._next()
        if request is None:
            return False
        begin = end = len(request.vectors)
        tokens = 0
        while end < len(request.texts) and (end == begin or tokens + len(request.texts[end]) <= GROUP_TOKENS):
            tokens += len(request.texts[end])
            end += 1
        matrix = vectors_of(self._model.network.eval(), request.texts[begin:end], self._way).numpy()
        request.vectors += list(matrix)
        with self._lock:
            if end == len(request.texts):
                self._requests.remove(request)
            else:
                self._requests.rotate(-1)
        if end == len(request.texts) and not request.is_over:
            request.is_over = True
            request.send(Vectors(np.stack(request.vectors)))
        return True

    def fail_all(self, error: Exception) -> None:
        """Let all requests fail."""
        with self._lock:
            for request in self._requests:
                request.fail(error)
            self._requests.clear()

    def _next(self) -> EmbeddingRequest | None:
        """The first request that somebody waits for."""
        now = time.monotonic()
        with self._lock:
            for request in self._requests:
                request.check_time(now)
            self._requests = deque(request for request in self._requests if not request.is_over)
            return self._requests[0] if self._requests else None
