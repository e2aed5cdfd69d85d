"""POST /v1/classify: labels of texts, or of pairs of texts, with the probabilities of all labels; their values."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from lmworks.evaluate.prediction import PredictedValue, Prediction
from lmworks.serve.answers import results_of
from lmworks.serve.api_errors import about_field
from lmworks.serve.bodies import read_body
from lmworks.serve.event_stream import JsonResponse
from lmworks.serve.record import record_of
from lmworks.serve.schemas import ClassifyBody
from lmworks.serve.service import service_of


async def classify(request: Request) -> Response:
    """Label a text, or each of several."""
    service, record = service_of(request), record_of(request.scope)
    body = await read_body(request, ClassifyBody, service.settings.body_bytes)
    served, queue = service.classifier(body.model, request)
    with about_field("input"):
        tokens = await run_in_threadpool(queue.tokens, body.texts)
        record.user, record.prompt_tokens = body.user, tokens
        predictions = await results_of(request, queue, body.texts, service.settings.time_limit)
    usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
    return JsonResponse(
        {
            "id": f"classify-{record.id}",
            "object": "list",
            "created": served.created,
            "model": served.name,
            "data": [_written(index, prediction, queue.labels) for index, prediction in enumerate(predictions)],
            "usage": usage,
        }
    )


def _written(index: int, prediction: Prediction | PredictedValue, labels: list[str]) -> dict[str, Any]:
    """One entry: vLLM's keys, and the names of the labels to which ``probs`` belong."""
    if isinstance(prediction, PredictedValue):
        return {"index": index, "value": prediction.value}
    probabilities = [prediction.probabilities[label] for label in labels]
    return {
        "index": index,
        "label": prediction.label,
        "probs": probabilities,
        "num_classes": len(labels),
        "classes": labels,
    }
