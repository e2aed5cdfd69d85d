"""A file of requests in the format of OpenAI's Batch API, answered within this process.

Each answer is a line that is written when it is there; a batch that was stopped or killed is begun again by the same
call, and goes on with the requests that have no line yet.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from starlette.types import ASGIApp

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.base.files import full_disk, is_full
from lmworks.serve.access import ApiKeys
from lmworks.serve.app import make_app, make_service
from lmworks.serve.event_stream import to_json
from lmworks.serve.in_process import post
from lmworks.serve.served_model import Servable
from lmworks.serve.service import Service
from lmworks.serve.settings import BatchSettings, ServeSettings

URLS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/classify",
    "/v1/rerank",
)
EXAMPLE = (
    'write {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", '
    '"body": {"messages": [{"role": "user", "content": "..."}]}}'
)
NO_LIMIT = 1e9  # seconds
MOST_WAITING = 1_000_000  # answers; the requests that are begun at a time are bounded by themselves


class BatchRequest(NamedTuple):
    """One line of the file.

    Attributes:
        custom_id: by which its answer is known.
        url: the endpoint.
        model: that it asks.
        body: what is posted there.
    """

    custom_id: str
    url: str
    model: str
    body: bytes


class BatchResult(NamedTuple):
    """What a batch came to: requests that were answered now, and how many of these with an error."""

    answered: int
    failed: int


def read_requests(path: Path, models: Sequence[str]) -> list[BatchRequest]:
    """The requests of a file, all of them checked.

    Args:
        path: a JSON object in each line.
        models: what requests call the models; a request that names none means the first.

    Raises:
        InputError: a line is no request, or asks a model that is not here; two have the same ``custom_id``.
    """
    requests: dict[str, BatchRequest] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", str(path), "give a file of requests") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        request = _request(line, models, place)
        if request.custom_id in requests:
            raise InputError(f"a second request {request.custom_id!r}", place, "give each request its own custom_id")
        requests[request.custom_id] = request
    if not requests:
        raise InputError("has no requests", str(path), EXAMPLE)
    return list(requests.values())


def _request(line: bytes, models: Sequence[str], place: str) -> BatchRequest:
    """A line as a request."""
    values = _object(line)
    if values is None:
        raise InputError("no JSON object", place, EXAMPLE)
    if unknown := next((key for key in values if key not in ("custom_id", "method", "url", "body")), None):
        raise InputError(f"there is no key {unknown!r} in a request", place, EXAMPLE)
    custom_id, url, body = (values.get(key) for key in ("custom_id", "url", "body"))
    if not isinstance(custom_id, str) or not custom_id:
        raise InputError("custom_id must be a text", place, EXAMPLE)
    if values.get("method", "POST") != "POST":
        raise InputError(f"method is {values['method']!r}", place, 'write "POST", or leave it out')
    if url not in URLS:
        raise InputError(f"url is {url!r}", place, f"one of {', '.join(URLS)}")
    if not isinstance(body, dict):
        raise InputError("body must be a JSON object", place, EXAMPLE)
    if body.get("stream"):
        raise InputError("stream: answers of a batch are written whole", place, "leave it out")
    model = body.setdefault("model", models[0])
    if model not in models:
        hint = f"ask for {list_names(models)}, or leave model out; lmworks batch {model}=MODEL names it so"
        raise InputError(f"asks the model {model!r}, which is not here", place, hint)
    return BatchRequest(custom_id, url, model, to_json(body))


def answered_ids(path: Path, requests: Sequence[BatchRequest]) -> set[str]:
    """The ``custom_id`` of each answer in a file; a last line that was not written to its end is taken out of it.

    Args:
        path: of answers; it need not be there.
        requests: those that they answer.

    Raises:
        InputError: it holds something else, or answers to other requests.
    """
    if not path.exists():
        return set()
    hint = "choose another file for --out"
    known, ids, end = {request.custom_id for request in requests}, set[str](), 0
    with open(path, "rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            values = _object(line)
            if values is None or not isinstance(values.get("custom_id"), str) or "response" not in values:
                raise InputError("holds something else than answers of a batch", str(path), hint)
            if values["custom_id"] not in known:
                raise InputError(f"has an answer to another request ({values['custom_id']!r})", str(path), hint)
            ids.add(values["custom_id"])
            end += len(line)
        file.truncate(end)
    return ids


def _object(line: bytes) -> dict[str, Any] | None:
    """A line as a JSON object; None: it is none."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def batch_service(models: Mapping[str, Servable], settings: BatchSettings) -> Service:
    """What answers a batch: models, and the adapters beside them; its notes say which of these cannot be loaded.

    Args:
        models: by the names that the requests use.
        settings: how much is computed at a time, and where the adapters are.

    Raises:
        InputError: a model cannot be served, or the folder of adapters cannot be read.
    """
    limits = {"time_limit": NO_LIMIT, "queue_size": MOST_WAITING, "body_limit": "1GB"}
    return make_service(models, ServeSettings(**settings.model_dump(), **limits))


def run_batch(
    service: Service,
    requests: Sequence[BatchRequest],
    out: Path,
    advance: Callable[[int], None] = lambda count: None,
) -> BatchResult:
    """Answer requests, and append a line for each to a file.

    Args:
        service: of :func:`batch_service`; it has not begun.
        requests: those that are to be answered.
        out: the file.
        advance: told how many more are answered.

    Raises:
        InputError: a request asks for an adapter that could not be loaded, or there is no room on the disk.
    """
    if lost := next((request for request in requests if request.model not in service.models), None):
        fault = f"asks the adapter {lost.model!r}, which could not be loaded"
        raise InputError(fault, f"request {lost.custom_id!r}", "the note above says why; leave such requests out")
    app = make_app(service, ApiKeys())
    service.worker.start()
    try:
        with open(out, "ab") as file:
            return asyncio.run(_answer_all(app, requests, file, 2 * service.settings.parallel, advance))
    except OSError as error:
        if is_full(error):
            raise full_disk(out) from error
        raise
    finally:
        service.worker.stop()


async def _answer_all(
    app: ASGIApp, requests: Sequence[BatchRequest], file: BinaryIO, at_once: int, advance: Callable[[int], None]
) -> BatchResult:
    left, failed = iter(requests), 0

    async def answer() -> None:
        nonlocal failed
        for request in left:
            reply = await post(app, request.url, request.body)
            response = {
                "status_code": reply.status,
                "request_id": reply.request_id,
                "body": json.loads(reply.content),
            }
            failed += reply.status != 200
            name = f"batch_req_{secrets.token_hex(12)}"
            file.write(
                to_json({"id": name, "custom_id": request.custom_id, "response": response, "error": None}) + b"\n"
            )
            file.flush()
            advance(1)

    tasks = [asyncio.ensure_future(answer()) for _ in range(min(at_once, len(requests)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return BatchResult(len(requests), failed)
