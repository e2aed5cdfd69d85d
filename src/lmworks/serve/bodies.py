"""Bodies of requests: read up to a limit, and checked against their schema; each fault is an error with its field."""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from lmworks.base.settings import nearest
from lmworks.serve.api_errors import ApiError
from lmworks.serve.record import record_of
from lmworks.serve.schemas import Body

B = TypeVar("B", bound=Body)
BODY_SECONDS = 30.0
"""How long a client may take to send a body."""


async def read_body(request: Request, schema: type[B], limit: int) -> B:
    """The body of a request.

    Args:
        request: not read so far.
        schema: what it may say.
        limit: bytes.

    Raises:
        ApiError: it is too large, no JSON, or not of this schema.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        hint = "send the header Content-Type: application/json"
        raise ApiError(415, f"the body is declared as {kind[:80] or 'nothing'}; {hint}", code="content_type")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            content = await _content(request, limit)
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {BODY_SECONDS:g} seconds") from None
    record = record_of(request.scope)
    if record.keeps_body:
        record.body = content.decode("utf-8", "replace")
    return parse_body(content, schema)


async def _content(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise ApiError(413, f"the body has more than {limit:,} bytes", code="body_too_large")
        parts.append(part)
    return b"".join(parts)


def parse_body(content: bytes, schema: type[B]) -> B:
    """JSON as a schema reads it.

    Raises:
        ApiError: it is no JSON object, or not of this schema.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_json") from None
    if not isinstance(values, dict):
        raise ApiError(400, f"the body must be a JSON object, not {_short(values)}", code="invalid_json")
    return parse_object(values, schema)


def parse_object(values: dict[str, Any], schema: type[B], within: str = "") -> B:
    """An object as a schema reads it.

    Args:
        values: of JSON.
        schema: what it may say.
        within: the place of a part of a body, such as "input[0]"; the error is about the field before the bracket.

    Raises:
        ApiError: it is not of this schema.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as faults:
        details = faults.errors(include_url=False, include_context=False)
    unknown = [fault for fault in details if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1]
    error = _fault(schema, dict((unknown or details)[0]))
    if within:
        error = ApiError(400, f"{within}: {error.message}", within.partition("[")[0], error.code)
    raise error


def _fault(schema: type[Body], fault: dict[str, Any]) -> ApiError:
    """One of pydantic's faults as an error with its field."""
    path, kind = [str(part) for part in fault["loc"]], fault["type"]
    field = path[0] if path else ""
    if kind == "extra_forbidden" and len(path) == 1:
        if field in schema.unsupported:
            return ApiError(
                400, f"{field} is not supported by this server: leave it out", field, "unsupported_parameter"
            )
        near = nearest(field, list(schema.model_fields))
        question = f"did you mean {near[0]}?" if near else f"known are {', '.join(schema.model_fields)}"
        return ApiError(400, f"there is no field {field[:80]!r} here: {question}", field[:80], "unknown_parameter")
    text = fault["msg"].removeprefix("Value error, ")
    if not path:  # the message names the field
        word = text.split()[0].rstrip(":")
        return ApiError(400, text, word if word in schema.model_fields else None, "invalid_value")
    if kind == "missing":
        return ApiError(400, f"{'.'.join(path)} is missing", field, "missing_parameter")
    if description := schema.model_fields[field].description:  # of a value that may be of several types
        return ApiError(400, f"{field}: give {description}, not {_short(fault['input'])}", field, "invalid_value")
    text = f"{'.'.join(path)}: {text[:1].lower()}{text[1:]}, not {_short(fault['input'])}"
    return ApiError(400, text, field, "invalid_value")


def _short(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "something nested deeply"
    return text if len(text) <= 80 else f"{text[:77]}..."
