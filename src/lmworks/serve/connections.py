"""Connections that send nothing, or the head of a request without end, are closed: each is one of those that there may
be."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 30.0
"""How long a client may take to send the head of a request; to send nothing after a response it has longer."""
MOST_HEAD = 2**16
"""Bytes of a head, about; httptools keeps all that comes, where h11 has this limit itself."""


class HeadLimits(asyncio.Protocol):
    """What uvicorn's protocols lack: limits to the time and the length of the head of a request."""

    cycle: Any
    loop: asyncio.AbstractEventLoop
    scope: Any
    transport: asyncio.Transport
    _deadline: asyncio.TimerHandle | None = None
    _head = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A client has sent something."""
        goes_on = self._is_in_head()
        super().data_received(data)
        self._head = self._head + len(data) if goes_on and self._is_in_head() else 0
        if self._head > MOST_HEAD:
            self.transport.close()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """A client has gone."""
        self._stop()
        super().connection_lost(exc)

    def _is_in_head(self) -> bool:
        """Whether the head of a request has begun, or is the first that is to come, and has not ended."""
        return self.cycle is None or self.cycle.scope is not self.scope

    def _watch(self) -> None:
        """Begin to wait for a head, or end it; what comes of one meanwhile gives no more time."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        self._deadline = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()


TimedProtocol: type[asyncio.Protocol] = type("TimedProtocol", (HeadLimits, AutoHTTPProtocol), {})
"""uvicorn's protocol with these limits: by httptools where that is installed, else by h11."""
