"""What is asked of the server itself: its models, its state, its counts; texts to tokens and back."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from lmworks.serve.api_errors import about_field
from lmworks.serve.bodies import read_body
from lmworks.serve.event_stream import JsonResponse
from lmworks.serve.metrics import CONTENT_TYPE
from lmworks.serve.schemas import DetokenizeBody, TokenizeBody
from lmworks.serve.served_model import ServedModel
from lmworks.serve.service import service_of


async def list_models(request: Request) -> Response:
    """GET /v1/models."""
    models = [described(served) for served in service_of(request).models.values()]
    return JsonResponse({"object": "list", "data": models})


async def show_model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    return JsonResponse(described(service_of(request).model(request.path_params["name"], request)))


def described(served: ServedModel) -> dict[str, Any]:
    """A model as OpenAI's API describes one; of an adapter its base as ``parent``."""
    parent = {} if served.parent is None else {"parent": served.parent}
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "lmworks",
        "context_length": served.context,
        **parent,
    }


async def health(request: Request) -> Response:
    """GET /health: whether the server computes."""
    is_alive = service_of(request).worker.is_alive()
    return JsonResponse({"status": "ok" if is_alive else "failed"}, 200 if is_alive else 503)


async def ready(request: Request) -> Response:
    """GET /ready: whether every queue has room for a request."""
    service = service_of(request)
    queues = [queue for served in service.models.values() for queue in served.queues]
    has_room = all(queue.waiting() < queue.queue_size for queue in queues)
    is_ready = service.worker.is_alive() and has_room
    return JsonResponse({"status": "ready" if is_ready else "busy"}, 200 if is_ready else 503)


async def metrics(request: Request) -> Response:
    """GET /metrics, in Prometheus' format."""
    return Response(service_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def tokenize(request: Request) -> Response:
    """POST /tokenize: the ids of a text, or of a conversation up to the answer."""
    service = service_of(request)
    body = await read_body(request, TokenizeBody, service.settings.body_bytes)
    served = service.model(body.model, request)
    if body.messages is not None:
        with about_field("messages"):
            ids = (await run_in_threadpool(served.conversation, body.messages)).ids
    else:
        with about_field("prompt"):
            ids = await run_in_threadpool(served.tokenizer.encode, body.prompt or "", body.add_special_tokens)
    return JsonResponse({"tokens": ids, "count": len(ids), "context_length": served.context})


async def detokenize(request: Request) -> Response:
    """POST /detokenize: the text of ids, special tokens written out."""
    service = service_of(request)
    body = await read_body(request, DetokenizeBody, service.settings.body_bytes)
    served = service.model(body.model, request)
    with about_field("tokens"):
        ids = served.check_ids(body.tokens)
    return JsonResponse({"text": await run_in_threadpool(served.tokenizer.decode, ids, False)})
