"""Continuous batching: which answers of which requests are computed next.

Answers have a place in the backend from the first part of their prompt to their last token; they join and leave between
tokens. Each turn reads some tokens of the prompts that are not read, and gives each other answer one token: a long
prompt delays a token by one part, and a part is short while others write. The client with the fewest places gets the
next one, and clients with as many take turns: one with many requests does not hold up one with a single request.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import numpy as np

from lmworks.serve.backend import Backend
from lmworks.serve.prompt_parts import SMALLEST_LIMIT, WHOLE_PART
from lmworks.serve.request import Choice, FinishReason, GenerationRequest, QueueFull
from lmworks.serve.turns import Turns

LONGEST_RETRY = 60  # seconds


class Observer:
    """Told what a scheduler does; this one makes nothing of it."""

    def prompt_read(self, tokens: int) -> None:
        """A part of a prompt was read."""

    def prompt_reused(self, tokens: int) -> None:
        """So many tokens of a prompt need not be read."""

    def first_token(self, seconds: float) -> None:
        """The first token of an answer came so long after its request."""

    def next_token(self, seconds: float) -> None:
        """Another token came so long after the one before."""

    def step(self, answers: int) -> None:
        """So many answers were computed together, one token of each."""

    def finished(self, reason: FinishReason, seconds: float) -> None:
        """An answer ended so long after its request came."""


class Scheduler:
    """The requests for what one model writes.

    Args:
        backend: computes; only :meth:`turn` uses it.
        queue_size: answers that may wait for a place.
        observer: told what happens.

    Attributes:
        wake: called when there is something to do.
        deliver: called before something is computed: events that were sent need not wait for that.
        cache_bytes: of keys and values after the last turn.
    """

    def __init__(self, backend: Backend, queue_size: int, observer: Observer | None = None) -> None:
        self.backend, self.queue_size, self._observer = backend, queue_size, observer or Observer()
        self.wake: Callable[[], None] = lambda: None
        self.deliver: Callable[[], None] = lambda: None
        self.cache_bytes = 0
        self._lock = threading.Lock()  # of _waiting and _dropped
        self._dropped: dict[str, Callable[[], None]] = {}
        self._waiting: deque[Choice] = deque()
        self._turns = Turns()
        self._reading: deque[Choice] = deque()
        self._writing: list[Choice] = []
        self._seconds = 1.0  # that an answer has its place, on the average

    def submit(self, request: GenerationRequest) -> None:
        """Let a request wait for its places; any thread may call. A full queue still takes a client that does not wait.

        Raises:
            QueueFull: too many wait already, some of this client among them.
        """
        with self._lock:
            waiting = len(self._waiting)
            if waiting >= self.queue_size and any(choice.request.client == request.client for choice in self._waiting):
                seconds = math.ceil(waiting / self.backend.most * self._seconds)
                raise QueueFull(min(max(seconds, 1), LONGEST_RETRY))
            self._waiting.extend(request.choices)
        self.wake()

    def waiting(self) -> int:
        """Answers that wait for a place."""
        return len(self._waiting)

    def running(self) -> int:
        """Answers that have one."""
        return len(self._reading) + len(self._writing)

    def drop_adapter(self, adapter: str, then: Callable[[], None]) -> None:
        """Forget an adapter once no answer has it any more; any thread may call.

        Args:
            adapter: of the backend, which no request names from now on.
            then: called when it is so, in the thread of :meth:`turn`.
        """
        with self._lock:
            self._dropped[adapter] = then
        self.wake()

    def has_dropped(self) -> bool:
        """Whether a dropped adapter is still in use."""
        return bool(self._dropped)

    def turn(self) -> bool:
        """Read some tokens of prompts, and write one token of each answer whose prompt is read.

        Returns:
            Whether there is more to do.
        """
        self._drop()
        self._forget_adapters()
        self._admit()
        self._read()
        self._write()
        self.cache_bytes = self.backend.cache_bytes()
        return bool(self._waiting or self._reading or self._writing or self._dropped)

    def fail_all(self, error: Exception) -> None:
        """Let all requests fail, since the backend did."""
        with self._lock:
            everything = [*self._waiting, *self._reading, *self._writing]
        for choice in everything:
            choice.request.fail(error)
        self._drop()

    def _drop(self) -> None:
        """Take out what nobody waits for any more, and let fail what took too long."""
        now = time.monotonic()
        if self._waiting:
            with self._lock:
                waiting = list(self._waiting)
                for choice in waiting:
                    choice.request.check_time(now)
                self._waiting = deque(choice for choice in waiting if not choice.request.is_over)
        for choice in [*self._reading, *self._writing]:
            choice.request.check_time(now)
            if choice.request.is_over:
                self._leave(choice)

    def _forget_adapters(self) -> None:
        """Forget the dropped adapters that no answer has any more."""
        if not self._dropped:
            return
        with self._lock:
            used = {choice.adapter for choice in [*self._waiting, *self._reading, *self._writing]}
            unused = {adapter: then for adapter, then in self._dropped.items() if adapter not in used}
            for adapter in unused:
                del self._dropped[adapter]
        for adapter, then in unused.items():
            self.backend.forget_adapter(adapter)
            then()

    def _admit(self) -> None:
        """Give places to answers that wait."""
        if not self._waiting:
            return
        with self._lock:
            while self._waiting and self.running() < self.backend.most:
                choice = self._next_to_place()
                self._waiting.remove(choice)
                self._turns.take(choice.request.client, (waiting.request.client for waiting in self._waiting))
                choice.placed = time.monotonic()
                self._reading.append(choice)

    def _next_to_place(self) -> Choice:
        """Of the client with the fewest places, else whose latest turn is the longest ago; of its requests the one with
        the fewest places, else the first."""
        places = Counter(choice.request.client for choice in [*self._reading, *self._writing])

        def rank(choice: Choice) -> tuple[int, int, int]:
            request = choice.request
            return places[request.client], self._turns.latest(request.client), request.active()

        return min(self._waiting, key=rank)

    def _read(self) -> None:
        """Read parts of prompts in turn."""
        limit = SMALLEST_LIMIT if self._writing else WHOLE_PART
        room = limit
        while room > 0 and self._reading:
            choice = self._next_to_read()
            if choice.number < 0 and not self._begin(choice):
                continue
            self.deliver()
            read, logits = self.backend.read(choice.number, limit)
            room -= read
            self._observer.prompt_read(read)
            if logits is not None and choice.scores_prompt:
                choice.take_prompt(logits, choice.read)
            choice.read += read
            is_read = self.backend.is_read(choice.number)
            self._reading.remove(choice)
            (self._writing if is_read else self._reading).append(choice)
            if is_read and logits is not None:
                choice.begin()
                self._take(choice, logits[-1])

    def _begin(self, choice: Choice) -> bool:
        """Give an answer its sequence; whether it has one: without its adapter its request fails alone."""
        try:
            choice.number, choice.reused = self.backend.add(choice.prompt, choice.scores_prompt, choice.adapter)
        except Exception as error:
            choice.request.fail(error)
            self._leave(choice)
            return False
        self._observer.prompt_reused(choice.reused)
        choice.read = choice.reused
        return True

    def _next_to_read(self) -> Choice:
        """The first in turn; of one request one after the other, so that they can reuse what the first one read."""
        first: dict[int, int] = {}
        for choice in self._reading:
            key = id(choice.request)
            first[key] = min(choice.index, first.get(key, choice.index))
        return next(choice for choice in self._reading if first[id(choice.request)] == choice.index)

    def _write(self) -> None:
        """One more token of each answer."""
        if not self._writing:
            return
        writing = list(self._writing)
        self._observer.step(len(writing))
        numbers, tokens = [choice.number for choice in writing], [choice.ids[-1] for choice in writing]
        self.deliver()
        logits = self.backend.step(numbers, tokens)
        for choice, row in zip(writing, logits, strict=True):
            self._take(choice, row)

    def _take(self, choice: Choice, logits: np.ndarray) -> None:
        """Give an answer its next token; a fault in its own settings, as in a grammar, ends its request alone."""
        before = choice.new_tokens
        if choice.finish_reason is None:
            try:
                choice.take(logits)
            except Exception as error:
                choice.request.fail(error)
                self._leave(choice)
                return
        now = time.monotonic()
        if choice.new_tokens > before:
            if choice.new_tokens == 1:
                self._observer.first_token(now - choice.request.began)
            else:
                self._observer.next_token(now - choice.last_time)
            choice.last_time = now
        if choice.finish_reason is not None:
            self._observer.finished(choice.finish_reason, now - choice.request.began)
            if choice.placed is not None:
                self._seconds += (now - choice.placed - self._seconds) / 8
            self._leave(choice)

    def _leave(self, choice: Choice) -> None:
        """Free the place of an answer."""
        choice.placed = None
        for places in (self._reading, self._writing):
            if choice in places:
                places.remove(choice)
        if choice.number >= 0:
            self.backend.remove(choice.number)
            choice.number = -1
