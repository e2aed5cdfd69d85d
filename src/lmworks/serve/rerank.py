"""POST /v1/rerank: documents by how much they have to do with a query.

A model that gives a pair of texts one value (a cross-encoder) scores query and document together; a sentence encoder
compares their vectors by cosine.
"""

from __future__ import annotations

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from lmworks.serve.answers import results_of
from lmworks.serve.api_errors import about_field
from lmworks.serve.bodies import read_body
from lmworks.serve.event_stream import JsonResponse
from lmworks.serve.label_queue import LabelQueue
from lmworks.serve.record import record_of
from lmworks.serve.schemas import RerankBody
from lmworks.serve.service import service_of


async def rerank(request: Request) -> Response:
    """Order documents, the most relevant one first."""
    service, record = service_of(request), record_of(request.scope)
    body = await read_body(request, RerankBody, service.settings.body_bytes)
    served, queue = service.ranker(body.model, request)
    limit = service.settings.time_limit
    if isinstance(queue, LabelQueue):
        pairs = [(body.query, text) for text in body.texts]
        with about_field("documents"):
            tokens = await run_in_threadpool(queue.tokens, pairs)
            scores = [prediction.value for prediction in await results_of(request, queue, pairs, limit)]
    else:
        with about_field("query"):
            ids = await run_in_threadpool(queue.ids_of, [body.query])
        with about_field("documents"):
            ids += await run_in_threadpool(queue.ids_of, body.texts)
        tokens = sum(map(len, ids))
        scores = cosines(await results_of(request, queue, ids, limit))
    record.user, record.prompt_tokens = body.user, tokens
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
    results = [
        {
            "index": index,
            "relevance_score": scores[index],
            **({"document": {"text": body.texts[index]}} if body.return_documents else {}),
        }
        for index in order
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JsonResponse({"id": f"rerank-{record.id}", "model": served.name, "results": results, "usage": usage})


def cosines(vectors: list[np.ndarray]) -> list[float]:
    """The cosine of the first vector (E,) with each of the others."""
    query, *documents = (vector / max(float(np.linalg.norm(vector)), 1e-12) for vector in vectors)
    return [float(query @ document) for document in documents]
