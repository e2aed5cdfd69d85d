"""GET /openapi.json: the server's API as OpenAPI 3.1 describes one, made from the routes and the schemas of bodies."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lmworks import __version__
from lmworks.serve.event_stream import JsonResponse
from lmworks.serve.response_schemas import ResponsesBody
from lmworks.serve.schemas import (
    Body,
    ChatBody,
    ClassifyBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    LoadAdapterBody,
    RerankBody,
    SamplingBody,
    TokenizeBody,
    UnloadAdapterBody,
)

BODIES: dict[str, type[Body]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/responses": ResponsesBody,
    "/v1/embeddings": EmbeddingBody,
    "/v1/rerank": RerankBody,
    "/v1/classify": ClassifyBody,
    "/v1/load_lora_adapter": LoadAdapterBody,
    "/v1/unload_lora_adapter": UnloadAdapterBody,
    "/tokenize": TokenizeBody,
    "/detokenize": DetokenizeBody,
}
"""What is posted to each path."""
TEXT_PATHS = {"/metrics"}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
OBJECT = {"application/json": {"schema": {"type": "object"}}}


async def describe(request: Request) -> Response:
    """Describe this API."""
    return JsonResponse(document(request.app.routes))


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The description of those routes that have a schema, or are only asked."""
    inputs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(body, "validation") for body in BODIES.values()]
    _, schemas = models_json_schema(inputs, ref_template="#/components/schemas/{model}")
    paths: dict[str, Any] = {}
    for route in routes:
        if isinstance(route, Route) and (route.path in BODIES or "GET" in (route.methods or ())):
            path, operation = _operation(route)
            paths[path] = {"post" if route.path in BODIES else "get": operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "lmworks serve", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**schemas["$defs"], "Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _operation(route: Route) -> tuple[str, dict[str, Any]]:
    """The path and the operation of a route."""
    path, body = route.path.replace(":path}", "}"), BODIES.get(route.path)
    content: dict[str, Any] = dict(OBJECT)
    if route.path in TEXT_PATHS:
        content = {"text/plain": {"schema": {"type": "string"}}}
    elif body is not None and issubclass(body, SamplingBody):
        content["text/event-stream"] = {"schema": {"type": "string"}}
    failure = {"schema": {"$ref": "#/components/schemas/Error"}}
    error = {"description": "an error", "content": {"application/json": failure}}
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": (inspect.getdoc(route.endpoint) or "").partition("\n")[0],
        "responses": {"200": {"description": "the answer", "content": content}, "4XX": error, "5XX": error},
    }
    if path != route.path:
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [name]
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return path, operation
