"""Responses whose client may hang up: work ends then, and streams of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lmworks.serve.api_errors import as_api_error
from lmworks.serve.record import RequestRecord, record_of

T = TypeVar("T")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
MARK = "\0"
"""Stands in the chunk of an :class:`EventTemplate` where the text is to be."""


def to_json(value: Any) -> bytes:
    """JSON in UTF-8; half of a surrogate pair, which UTF-8 cannot write, becomes a question mark."""
    return _ENCODER.encode(value).encode("utf-8", "replace")


def to_event(chunk: Mapping[str, Any]) -> bytes:
    """A chunk as a server-sent event without a name."""
    return b"data: " + to_json(chunk) + b"\n\n"


class EventTemplate:
    """Events that differ in one text alone: what stands around it is written once, and not for each token.

    Args:
        chunk: one of them; its last text is MARK.
    """

    def __init__(self, chunk: Mapping[str, Any]) -> None:
        self._before, _, self._after = to_event(chunk).rpartition(to_json(MARK))

    def fill(self, text: str) -> bytes:
        """The event with a text."""
        return self._before + to_json(text) + self._after


async def until_hangup(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is cancelled when the client hangs up.

    Args:
        receive: of the connection, whose body is read.
        work: what is awaited.

    Raises:
        ClientDisconnect: the client has gone.
    """
    hangup, task = asyncio.ensure_future(_hangup(receive)), asyncio.ensure_future(work)
    try:
        await asyncio.wait({hangup, task}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        hangup.cancel()
        task.cancel()
        await asyncio.gather(hangup, task, return_exceptions=True)


async def _hangup(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class JsonResponse(Response):
    """A JSON object."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return to_json(content)


class EventStream(Response):
    """Server-sent events, one for each chunk, and ``[DONE]`` after the last; an error is an event, too, and the last.

    Events of OpenAI's Responses have names, those of the other streams have none.

    Args:
        chunks: JSON objects, or events that are written already.
        cancel: called when all is sent, or the client has hung up.
        is_named: each chunk has the name of its event as ``type``, and nothing comes after the last.
    """

    media_type = "text/event-stream"

    def __init__(
        self, chunks: AsyncGenerator[dict[str, Any] | bytes, None], cancel: Callable[[], None], is_named: bool = False
    ) -> None:
        self.status_code, self.background, self._chunks, self._cancel = 200, None, chunks, cancel
        self._is_named = is_named
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all."""
        try:
            await until_hangup(receive, self._send_all(send, record_of(scope)))
        finally:
            self._cancel()

    async def _send_all(self, send: Send, record: RequestRecord) -> None:
        async def write(body: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})

        count = 0
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    await write(self._event(chunk))
                    count += 1
            await write(b"" if self._is_named else b"data: [DONE]\n\n", more=False)
        except OSError as error:  # what a connection that was closed raises
            raise ClientDisconnect from error
        except Exception as error:
            failure = as_api_error(error)
            record.error = failure.code
            await write(self._event(failure.event(count) if self._is_named else failure.body()), more=False)

    def _event(self, chunk: dict[str, Any] | bytes) -> bytes:
        if isinstance(chunk, bytes):
            return chunk
        name = f"event: {chunk['type']}\n".encode() if self._is_named else b""
        return name + to_event(chunk)
