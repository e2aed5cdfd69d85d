"""Events on their way from the worker's thread to the event loops that wait for them.

They leave together: a loop is woken once for all that a turn has brought, and not for each token of each answer; and it
is woken when the worker goes on computing, so that both do not wait for the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Iterable

from lmworks.serve.request import Event, Failed


class Outbox:
    """The events of a turn, of all requests; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[tuple[Inbox, Event]] = []

    def put(self, inbox: Inbox, event: Event) -> None:
        """Keep an event until it is delivered."""
        with self._lock:
            self._events.append((inbox, event))

    def deliver(self) -> None:
        """Bring what is there to the inboxes."""
        if not self._events:
            return
        with self._lock:
            events, self._events = self._events, []
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Inbox, Event]]] = {}
        for inbox, event in events:
            loops.setdefault(inbox.loop, []).append((inbox, event))
        for loop, own in loops.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_receive, own)


class Inbox:
    """The events of one request, in the event loop in which it was made.

    Args:
        outbox: brings them.

    Attributes:
        loop: the event loop.
    """

    def __init__(self, outbox: Outbox) -> None:
        self.loop = asyncio.get_running_loop()
        self._outbox, self._events = outbox, deque[Event]()
        self._news: asyncio.Future[None] | None = None

    def send(self, event: Event) -> None:
        """Take an event; any thread may call. It comes with the next delivery."""
        self._outbox.put(self, event)

    def receive(self, event: Event) -> None:
        """An event is there; called in the loop."""
        self._events.append(event)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def next(self) -> Event:
        """The next event.

        Raises:
            Exception: that of the request, where it failed.
        """
        await self._wait()
        return self._events.popleft()

    async def ready(self) -> list[Event]:
        """All events that are there, one or more.

        Raises:
            Exception: that of the request, where it failed; what came before was given.
        """
        events = [await self.next()]
        while self._events and not isinstance(self._events[0], Failed):
            events.append(self._events.popleft())
        return events

    async def _wait(self) -> None:
        while not self._events:
            self._news = self.loop.create_future()
            await self._news
        if isinstance(first := self._events[0], Failed):
            raise first.error


def _receive(events: Iterable[tuple[Inbox, Event]]) -> None:
    for inbox, event in events:
        inbox.receive(event)
