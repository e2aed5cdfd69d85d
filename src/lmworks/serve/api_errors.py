"""Errors as OpenAI's API writes them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lmworks.base.errors import InputError
from lmworks.serve.json_log import LOGGER
from lmworks.serve.request import QueueFull, Stopping, TimeLimit

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""``type`` by status; of others invalid_request_error below 500, server_error from there on."""


class ApiError(Exception):
    """What the client is answered instead.

    Args:
        status: of HTTP.
        message: what is wrong, and how to correct it.
        param: the field that it is about.
        code: a word for programs.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def event(self, number: int) -> dict[str, Any]:
        """The event of OpenAI's Responses, of this number, by which a stream ends that failed."""
        return {
            "type": "error",
            "sequence_number": number,
            "message": self.message,
            "param": self.param,
            "code": self.code,
        }


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of an error. Of one that should not be, the log has more."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        return ApiError(400, one_line(error), code="invalid_value")
    if isinstance(error, QueueFull):
        message = f"{error}; try again in {error.retry_after} seconds"
        return ApiError(429, message, code="queue_full", headers={"Retry-After": str(error.retry_after)})
    if isinstance(error, TimeLimit):  # the same again would take as long
        return ApiError(504, str(error), code="time_limit", headers={"X-Should-Retry": "false"})
    if isinstance(error, Stopping):
        return ApiError(503, str(error), code="stopping")
    logging.getLogger(LOGGER).error("failure", exc_info=error)
    return ApiError(500, "the server failed; its log says more", code="internal_error")


def one_line(error: InputError) -> str:
    """An input error as one sentence with its hint."""
    text = f"{error.place}: {error.fault}" if error.place else error.fault
    return f"{text} (hint: {error.hint})" if error.hint else text


@contextmanager
def about_field(param: str, *others: str) -> Iterator[None]:
    """Turn input errors into errors about a field of the request: one of several, where their place begins with it."""
    try:
        yield
    except InputError as error:
        named = re.split(r"\W", error.place, maxsplit=1)[0]
        message = one_line(error)
        if named in (param, *others):
            raise ApiError(400, message, named, "invalid_value") from error
        raise ApiError(400, f"{param}: {message}", param, "invalid_value") from error
