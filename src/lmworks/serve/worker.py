"""The thread that computes: it owns the models of a server and gives each a turn after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from lmworks.serve.delivery import Outbox
from lmworks.serve.request import Stopping


class Queue(Protocol):
    """The requests for one model (serve/scheduler.py, serve/embedding_queue.py).

    Attributes:
        wake: what it calls when a request has come.
        deliver: what it calls right before it computes: who waits for its events goes on then, in another thread.
    """

    wake: Callable[[], None]
    deliver: Callable[[], None]

    def turn(self) -> bool:
        """Do a short piece of work; whether there is more."""

    def fail_all(self, error: Exception) -> None:
        """Let all requests fail."""


class Worker:
    """The thread.

    Args:
        queues: of all models that it begins with.

    Attributes:
        outbox: of the events of all requests.
    """

    def __init__(self, queues: Sequence[Queue]) -> None:
        self.outbox = Outbox()
        self._queues: list[Queue] = []
        self._changes = threading.Lock()  # of _queues
        self._turns = threading.Lock()  # held during the turn of a queue
        self._work = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="lmworks-serve", daemon=True)
        for queue in queues:
            self.add(queue)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def add(self, queue: Queue) -> None:
        """Give a queue its turns from now on; any thread may call."""
        queue.wake, queue.deliver = self._work.set, self.outbox.deliver
        with self._changes:
            self._queues = [*self._queues, queue]
        self._work.set()

    def remove(self, queue: Queue, error: Exception) -> None:
        """Give a queue no turn any more; any thread may call.

        Args:
            queue: one of the worker's.
            error: with which its requests fail, those that come too late as well.
        """
        with self._changes:
            self._queues = [other for other in self._queues if other is not queue]
        queue.wake = lambda: self._fail(queue, error)
        with self._turns:
            self._fail(queue, error)

    def is_alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End after the turn that it is at; requests that are not done fail."""
        self._is_stopping = True
        self._work.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping:
            self._work.clear()
            is_busy = False
            for queue in self._queues:
                is_busy |= self._turn(queue)
            if not is_busy:  # else a queue delivers before it computes
                self.outbox.deliver()
                if not self._is_stopping:
                    self._work.wait()
        for queue in self._queues:
            self._fail(queue, Stopping("the server is stopping"))

    def _turn(self, queue: Queue) -> bool:
        """A turn of one model; what fails there ends its requests, and not the thread."""
        with self._turns:
            if not any(queue is present for present in self._queues):  # removed since this round began
                return False
            try:
                return queue.turn()
            except Exception as error:
                queue.fail_all(error)
                return True

    def _fail(self, queue: Queue, error: Exception) -> None:
        """End the requests of a queue."""
        queue.fail_all(error)
        self.outbox.deliver()
