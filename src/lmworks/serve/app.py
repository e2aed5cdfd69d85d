"""The application: which path is answered by what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmworks.base.errors import InputError
from lmworks.serve.access import ApiKeys
from lmworks.serve.adapter_api import load_adapter, unload_adapter
from lmworks.serve.adapters import AdapterFolder
from lmworks.serve.api_errors import ApiError, as_api_error, one_line
from lmworks.serve.chat import chat_completions
from lmworks.serve.classify import classify
from lmworks.serve.completions import completions
from lmworks.serve.description import describe
from lmworks.serve.embeddings import embeddings
from lmworks.serve.guard import Guard, error_response
from lmworks.serve.metrics import Metrics
from lmworks.serve.operation import detokenize, health, list_models, metrics, ready, show_model, tokenize
from lmworks.serve.record import record_of
from lmworks.serve.request import QueueFull, Stopping, TimeLimit
from lmworks.serve.rerank import rerank
from lmworks.serve.responses import responses
from lmworks.serve.served_model import Servable, serve_model
from lmworks.serve.service import Service
from lmworks.serve.settings import ServeSettings
from lmworks.serve.worker import Worker

ROUTES = [
    Route("/v1/models", list_models),
    Route("/v1/models/{name:path}", show_model),
    Route("/v1/load_lora_adapter", load_adapter, methods=["POST"]),
    Route("/v1/unload_lora_adapter", unload_adapter, methods=["POST"]),
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/responses", responses, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/rerank", rerank, methods=["POST"]),
    Route("/v1/classify", classify, methods=["POST"]),
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
    Route("/health", health),
    Route("/ready", ready),
    Route("/metrics", metrics),
    Route("/openapi.json", describe),
]


def make_service(models: Mapping[str, Servable], settings: ServeSettings) -> Service:
    """The state of a server.

    Args:
        models: opened for generation, by the names that requests use.
        settings: of the server.

    Raises:
        InputError: a model cannot be served.
    """
    counts = Metrics()
    served = {name: serve_model(name, model, settings, counts.of_model(name)) for name, model in models.items()}
    for model in served.values():
        if model.scheduler is not None:
            counts.watch(model.name, model.scheduler)
    worker = Worker([queue for model in served.values() for queue in model.queues])
    service = Service(served, worker, counts, settings)
    if settings.adapters is not None:
        service.adapters = AdapterFolder(settings.adapters, served.values())
        _load_all(service, service.adapters)
    return service


def _load_all(service: Service, adapters: AdapterFolder) -> None:
    """Load all adapters of a folder that can be loaded; of the others there are notes."""
    for name in adapters.names():
        if name in service.models:
            service.notes.append(f"adapter {name}: a model is called so, too; load it under another name")
            continue
        try:
            service.models[name] = adapters.load(name)
        except InputError as error:
            service.notes.append(f"adapter {name} is not served: {one_line(error)}")
        else:
            service.notes += service.models[name].notes


def make_app(service: Service, keys: ApiKeys) -> Starlette:
    """The application of a server; its worker runs while the application does.

    Args:
        service: its state.
        keys: of clients.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.worker.stop()

    settings = service.settings
    paths = {route.path for route in ROUTES}
    middleware = [Middleware(Guard, keys=keys, metrics=service.metrics, paths=paths, log_texts=settings.log_texts)]
    if settings.cors_origins:  # before the guard: a browser asks whether it may ask without a key
        origins = list(settings.cors_origins)
        middleware.insert(
            0, Middleware(CORSMiddleware, allow_origins=origins, allow_headers=["*"], allow_methods=["*"])
        )
    errors = (ApiError, InputError, QueueFull, Stopping, TimeLimit)
    app = Starlette(
        routes=ROUTES,
        middleware=middleware,
        exception_handlers=dict.fromkeys(errors, _answer_error) | {HTTPException: _answer_http_error},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    failure = as_api_error(error)
    record_of(request.scope).error = failure.code
    return error_response(failure)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """A path that there is not, or a method that it does not take."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:80]
    message = f"{request.method} {path}: {str(error.detail).lower()}; there are: {', '.join(map(_shown, ROUTES))}"
    return await _answer_error(
        request, ApiError(error.status_code, message, code="no_such_path", headers=error.headers)
    )


def _shown(route: Route) -> str:
    method = "POST" if "POST" in (route.methods or ()) else "GET"
    return f"{method} {route.path.replace('{name:path}', 'NAME')}"
