"""The models that are here: those in the studio's folders and in the cache; opened when somebody asks for one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmworks.base import hub
from lmworks.base.errors import InputError
from lmworks.base.journal import JOURNAL
from lmworks.base.sources import aliases, cached_alias
from lmworks.baselines.tfidf import TextClassifier
from lmworks.serve.api_errors import ApiError
from lmworks.serve.bodies import read_body
from lmworks.serve.event_stream import JsonResponse
from lmworks.serve.request import Stopping
from lmworks.serve.schemas import Body
from lmworks.serve.served_model import Servable, ServedModel, serve_model
from lmworks.serve.service import Service
from lmworks.studio.folders import Folders

OpenModel = Callable[[str], Servable]
"""Opens a source for generation; raises an InputError where it cannot."""
ADAPTER, CONFIG = "adapter_config.json", "config.json"
ADVISED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""Keys of a generation_config.json that the page begins with."""


@dataclass(frozen=True)
class Source:
    """Where a model is.

    Attributes:
        source: as lmworks.load takes it.
        kind: what a person calls it: run, adapter, folder, GGUF file, in the cache.
    """

    source: str
    kind: str


class Models:
    """The models of a studio.

    Args:
        service: serves those that are open.
        folders: where models are looked for.
        open_model: opens a source for generation.
    """

    def __init__(self, service: Service, folders: Folders, open_model: OpenModel) -> None:
        self._service, self._folders, self._open_model = service, folders, open_model
        self._opening: dict[str, asyncio.Task[ServedModel]] = {}

    def listed(self) -> list[dict[str, Any]]:
        """Each model with its name, kind and state (open, opening or closed), the open ones first."""
        models = [described(served) for served in list(self._service.models.values())]
        names = {model["name"] for model in models}
        for name, source in self._sources().items():
            if name not in names:
                state = "opening" if name in self._opening else "closed"
                models.append({"name": name, "kind": source.kind, "state": state})
        return models

    async def open(self, name: str) -> ServedModel:
        """Open a model, unless it is open; several who ask at once wait for the same opening.

        Raises:
            ApiError: there is no such model.
            InputError: it cannot be opened, or not be served.
        """
        if name in self._service.models:
            return self._service.models[name]
        if name not in self._opening:
            source = (await run_in_threadpool(self._sources)).get(name)
            if source is None:
                raise ApiError(404, f"there is no model {name[:80]!r} here: reload the list", "name", "model_not_found")
            self._opening[name] = task = asyncio.ensure_future(self._add(name, source.source))
            task.add_done_callback(lambda done: self._forget(name, done))
        return await asyncio.shield(self._opening[name])

    def _forget(self, name: str, done: asyncio.Task[ServedModel]) -> None:
        """An opening is over; whoever waited for it has its error, and where nobody did it need not be told."""
        del self._opening[name]
        if not done.cancelled():
            done.exception()

    def close(self, name: str) -> None:
        """Close a model, which frees its memory; answers that it is writing end with an error.

        Raises:
            ApiError: no such model is open.
        """
        served = self._service.models.pop(name, None)
        if served is None:
            raise ApiError(404, f"no model {name[:80]!r} is open", "name", "model_not_found")
        if served.scheduler is not None:
            self._service.metrics.unwatch(name)
        for queue in served.queues:
            self._service.worker.remove(queue, Stopping(f"the model {name} was closed"))

    async def _add(self, name: str, source: str) -> ServedModel:
        service = self._service
        model = await run_in_threadpool(self._open_model, source)
        observer = service.metrics.of_model(name)
        served = await run_in_threadpool(serve_model, name, model, service.settings, observer)
        for queue in served.queues:
            service.worker.add(queue)
        if served.scheduler is not None:
            service.metrics.watch(name, served.scheduler)
        service.models[name] = served
        return served

    def _sources(self) -> dict[str, Source]:
        """By name; of equal names the one in the folders counts."""
        return {**dict(_cached()), **dict(_found(self._folders))}


def _found(folders: Folders) -> Iterator[tuple[str, Source]]:
    """Runs with something to open, adapters, model folders and GGUF files."""
    for path, below, files in folders.walk():
        if JOURNAL in files:
            if any((path / part).is_dir() for part in ("final", "checkpoints")):
                yield folders.name(path), Source(str(path), "run")
            below.clear()
        elif ADAPTER in files:
            yield folders.name(path), Source(str(path), "adapter")
            below.clear()
        elif CONFIG in files and any(file.endswith(".safetensors") for file in files):
            yield folders.name(path), Source(str(path), "folder")
            below.clear()
        for file in hub.whole_ggufs([file for file in files if file.endswith(".gguf")]):
            yield folders.name(path / file), Source(str(path / file), "GGUF file")


def _cached() -> Iterator[tuple[str, Source]]:
    """Those in the cache: by the hub's name, or their alias."""
    for record in hub.records():
        if record["what"] == "model":
            yield record["source"], Source(record["source"], "in the cache")
    for alias in aliases().values():
        with contextlib.suppress(InputError):  # what lies in the cache holds no model, or several
            if cached_alias(alias) is not None:
                yield alias.name, Source(alias.name, "in the cache")


def described(served: ServedModel) -> dict[str, Any]:
    """What the page must know of a model that is open.

    Returns:
        name, kind, state ("open"), writes (whether it writes texts), reads ("chat": whole conversations; "message": one
        message, in the words of its run; "text": a text, which it continues), context (tokens or None), advised
        (settings of its generation_config.json) and notes (what was said when it was opened).
    """
    model = served.model
    reads, advised = "text", dict[str, float]()
    if not isinstance(model, TextClassifier):
        form, has_template = model.input_format, served.tokenizer.chat_template is not None
        reads = "message" if form is not None and form.has_prompt else "text"
        if has_template and (form is None or form.template != "off"):
            reads = "chat"
        numbers = {key: model.generation.get(key) for key in ADVISED}
        advised = {key: value for key, value in numbers.items() if isinstance(value, int | float)}
    return {
        "name": served.name,
        "kind": "",
        "state": "open",
        "writes": served.scheduler is not None,
        "reads": reads,
        "context": served.context,
        "advised": advised,
        "notes": [*getattr(model, "notes", []), *served.notes],
    }


class NameBody(Body):
    """A request about a model."""

    name: str


def routes(folders: Folders) -> list[Route]:
    """The routes under /studio/api/models, which several tabs use."""
    return [
        Route("/studio/api/models", _list),
        Route("/studio/api/models/open", _open, methods=["POST"]),
        Route("/studio/api/models/close", _close, methods=["POST"]),
    ]


def _models_of(request: Request) -> Models:
    models: Models = request.app.state.models
    return models


async def _name(request: Request) -> str:
    service: Service = request.app.state.service
    return (await read_body(request, NameBody, service.settings.body_bytes)).name


async def _list(request: Request) -> Response:
    return JsonResponse({"models": await run_in_threadpool(_models_of(request).listed)})


async def _open(request: Request) -> Response:
    return JsonResponse(described(await _models_of(request).open(await _name(request))))


async def _close(request: Request) -> Response:
    await run_in_threadpool(_models_of(request).close, await _name(request))
    return JsonResponse({})
