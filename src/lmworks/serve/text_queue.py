"""Requests about texts, such as their vectors or labels: a few texts of each in turn, so that a long list does not
stall others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from lmworks.serve.request import QueueFull, Results, TextRequest
from lmworks.serve.turns import Turns

GROUP_TOKENS = 1024
"""Tokens of the texts that are computed in one turn, if one text has no more."""
RETRY_AFTER = 1  # seconds


class TextQueue:
    """The requests about texts for one model.

    Args:
        compute: gives for each of several texts what is asked; called by :meth:`turn` alone.
        tokens_of: about how many tokens a text has.
        queue_size: requests that may wait.

    Attributes:
        wake: called when there is something to do.
        deliver: called before something is computed: events that were sent need not wait for that.
    """

    def __init__(
        self, compute: Callable[[Sequence[Any]], Sequence[Any]], tokens_of: Callable[[Any], int], queue_size: int
    ) -> None:
        self._compute, self._tokens_of, self.queue_size = compute, tokens_of, queue_size
        self.wake: Callable[[], None] = lambda: None
        self.deliver: Callable[[], None] = lambda: None
        self._lock = threading.Lock()  # of _requests
        self._requests: deque[TextRequest] = deque()
        self._turns = Turns()

    def submit(self, request: TextRequest) -> None:
        """Let a request wait; any thread may call.

        Raises:
            QueueFull: too many wait already, some of this client among them.
        """
        with self._lock:
            waits = any(other.client == request.client for other in self._requests)
            if waits and len(self._requests) >= self.queue_size:
                raise QueueFull(RETRY_AFTER)
            self._requests.append(request)
        self.wake()

    def waiting(self) -> int:
        """Requests that are not done."""
        return len(self._requests)

    def turn(self) -> bool:
        """Compute what is asked of some texts of the request whose turn it is; a fault of one ends its request alone.

        Returns:
            Whether there is more to do.
        """
        request = self._next()
        if request is None:
            return False
        self.deliver()
        try:
            request.results += self._compute(request.texts[len(request.results) : self._end(request)])
        except Exception as error:
            request.fail(error)
        is_done = len(request.results) == len(request.texts)
        if is_done and not request.is_over:
            request.is_over = True
            request.send(Results(request.results))
        with self._lock:
            self._requests.remove(request)
            if not request.is_over:
                self._requests.append(request)
        return True

    def fail_all(self, error: Exception) -> None:
        """Let all requests fail."""
        with self._lock:
            for request in self._requests:
                request.fail(error)
            self._requests.clear()

    def _end(self, request: TextRequest) -> int:
        """The number of the first text that is not computed in this turn."""
        begin = end = len(request.results)
        tokens = 0
        while end < len(request.texts):
            tokens += self._tokens_of(request.texts[end])
            if tokens > GROUP_TOKENS and end > begin:
                break
            end += 1
        return end

    def _next(self) -> TextRequest | None:
        """The next request that somebody waits for: of the client whose latest turn is the longest ago the first."""
        now = time.monotonic()
        with self._lock:
            for request in self._requests:
                request.check_time(now)
            self._requests = deque(request for request in self._requests if not request.is_over)
            if not self._requests:
                return None
            request = min(self._requests, key=lambda request: self._turns.latest(request.client))
            self._turns.take(request.client, (request.client for request in self._requests))
            return request
