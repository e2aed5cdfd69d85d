"""POST /v1/embeddings."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from lmworks.serve.answers import results_of
from lmworks.serve.api_errors import about_field
from lmworks.serve.bodies import read_body
from lmworks.serve.event_stream import JsonResponse
from lmworks.serve.record import record_of
from lmworks.serve.schemas import EmbeddingBody, as_list
from lmworks.serve.service import service_of


async def embeddings(request: Request) -> Response:
    """The vector of a text, or of each of several."""
    service, record = service_of(request), record_of(request.scope)
    body = await read_body(request, EmbeddingBody, service.settings.body_bytes)
    served, queue = service.embedder(body.model, request)
    with about_field("input"):
        texts = await run_in_threadpool(queue.ids_of, as_list(body.input))
    tokens = sum(map(len, texts))
    record.user, record.prompt_tokens = body.user, tokens
    vectors = await results_of(request, queue, texts, service.settings.time_limit)
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JsonResponse({"object": "list", "data": data, "model": served.name, "usage": usage})


def _written(vector: np.ndarray, encoding: str) -> Any:
    """A vector (E,) as numbers, or as the base64 of float32 with the lowest byte first."""
    if encoding == "float":
        return vector.tolist()
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
