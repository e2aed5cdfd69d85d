"""Requests to the application within this process, without a socket."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message


class Reply(NamedTuple):
    """What the application answered: the status of HTTP, the request's id, and the body."""

    status: int
    request_id: str
    content: bytes


async def post(app: ASGIApp, path: str, body: bytes) -> Reply:
    """Post a JSON object; when this is cancelled, the request is too.

    Args:
        app: the application.
        path: of the endpoint.
        body: the object.
    """
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not parts:
            await asyncio.Event().wait()  # nobody hangs up
        return parts.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": None,
        "server": ("localhost", None),
    }
    await app(scope, receive, send)
    headers = Headers(raw=sent[0]["headers"])
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return Reply(sent[0]["status"], headers.get("x-request-id", ""), content)
