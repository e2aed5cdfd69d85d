"""Around all endpoints: who may ask, the request's id, one line of the log, the counts; no error leaves unanswered."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmworks.serve.access import ApiKeys, host_name, is_loopback
from lmworks.serve.api_errors import ApiError, as_api_error
from lmworks.serve.event_stream import JsonResponse
from lmworks.serve.json_log import FIELDS, LOGGER
from lmworks.serve.metrics import Metrics
from lmworks.serve.record import KEY, RequestRecord

OPEN_PATHS = {"/health", "/ready"}
"""For programs that watch the server: they need no key, and no line of the log."""
GIVEN_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
HUNG_UP = 499  # as nginx logs it


class Guard:
    """ASGI middleware.

    Args:
        app: answers.
        keys: of which one must be sent.
        metrics: counts requests.
        paths: those that are counted by name.
        log_texts: whether the log has the bodies of requests.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, metrics: Metrics, paths: set[str], log_texts: bool = False) -> None:
        self._app, self._keys, self._metrics, self._paths = app, keys, metrics, paths
        self._log_texts = log_texts
        self._log = logging.getLogger(LOGGER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, begin, status = Headers(scope=scope), time.monotonic(), 0
        given = headers.get("x-request-id", "")
        record = RequestRecord(
            given if GIVEN_ID.fullmatch(given) else secrets.token_hex(12), keeps_body=self._log_texts
        )
        scope[KEY] = record

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = record.id
            await send(message)

        try:
            record.client = self._client(scope, headers)
            await self._app(scope, receive, send_on)
        except ClientDisconnect:
            status = HUNG_UP
        except Exception as error:
            failure = as_api_error(error)
            record.error = failure.code
            if status:  # the answer has begun: cut off, it cannot be taken for a whole one
                raise
            await error_response(failure)(scope, receive, send_on)
        finally:
            self._tell(scope, record, status or HUNG_UP, time.monotonic() - begin)

    def _client(self, scope: Scope, headers: Headers) -> str:
        """Who asks: one of the keys, or without keys an address.

        Raises:
            ApiError: a request without a key; without keys, one that a web page of another site made.
        """
        if scope["path"] in OPEN_PATHS:
            return ""
        client = self._keys.client_of(headers.get("authorization", ""))
        if client is None:
            message = "no valid API key was sent: send the header Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        # the name of another site that was made to point here (DNS rebinding)
        if not self._keys and not is_loopback(host_name(headers.get("host", ""))):
            message = "without API keys only requests to localhost are answered: the header Host names another one"
            raise ApiError(403, message, code="wrong_host")
        return client or (scope.get("client") or ("",))[0]

    def _tell(self, scope: Scope, record: RequestRecord, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.requests.labels(path, str(status)).inc()
        if path in OPEN_PATHS:
            return
        values = {"method": scope["method"], "path": path, "status": status, "seconds": round(seconds, 4)}
        self._log.info("request", extra={FIELDS: {**values, **record.fields()}})


def error_response(error: ApiError) -> JsonResponse:
    """OpenAI's error object with its status."""
    return JsonResponse(error.body(), error.status, headers=dict(error.headers or {}))
