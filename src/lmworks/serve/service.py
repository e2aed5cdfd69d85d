"""What the endpoints share: the models by name, the worker, and the settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

from lmworks.base.figures import list_names
from lmworks.serve.adapters import AdapterFolder
from lmworks.serve.api_errors import ApiError
from lmworks.serve.metrics import Metrics
from lmworks.serve.record import record_of
from lmworks.serve.scheduler import Scheduler
from lmworks.serve.served_model import ServedModel
from lmworks.serve.settings import ServeSettings
from lmworks.serve.worker import Worker

if TYPE_CHECKING:
    from lmworks.serve.embedding_queue import EmbeddingQueue
    from lmworks.serve.label_queue import LabelQueue


@dataclass
class Service:
    """A server's state; the application has it as ``state.service``.

    Attributes:
        models: by the names that requests use.
        worker: computes.
        metrics: of all requests.
        settings: of the server.
        adapters: those that may be loaded; None: the server was started without any.
        adapter_lock: held while one is loaded.
        notes: what a person should know of adapters that were loaded, or could not be.
    """

    models: dict[str, ServedModel]
    worker: Worker
    metrics: Metrics
    settings: ServeSettings
    adapters: AdapterFolder | None = None
    adapter_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    notes: list[str] = field(default_factory=list)

    def model(self, name: str, request: Request) -> ServedModel:
        """The model that a request names.

        Raises:
            ApiError: there is none.
        """
        served = self.models.get(name)
        if served is None:
            message = f"there is no model {name[:80]!r} here; there are: {', '.join(self.models)}"
            raise ApiError(404, message, "model", "model_not_found")
        record_of(request.scope).model = name
        return served

    def writer(self, name: str, request: Request) -> tuple[ServedModel, Scheduler]:
        """A model that writes texts, with its scheduler.

        Raises:
            ApiError: there is none, or it writes none.
        """
        served = self.model(name, request)
        if served.scheduler is None:
            raise self._wrong_kind(name, "writes no texts", lambda other: other.scheduler is not None)
        return served, served.scheduler

    def embedder(self, name: str, request: Request) -> tuple[ServedModel, EmbeddingQueue]:
        """A model that gives vectors, with its queue.

        Raises:
            ApiError: there is none, or it gives none.
        """
        served = self.model(name, request)
        if served.embeddings is None:
            raise self._wrong_kind(name, "gives no vectors", lambda other: other.embeddings is not None)
        return served, served.embeddings

    def classifier(self, name: str, request: Request) -> tuple[ServedModel, LabelQueue]:
        """A model that labels texts, or gives them values, with its queue.

        Raises:
            ApiError: there is none, or it does not.
        """
        served = self.model(name, request)
        if served.labels is None:
            raise self._wrong_kind(name, "labels no texts", lambda other: other.labels is not None)
        return served, served.labels

    def ranker(self, name: str, request: Request) -> tuple[ServedModel, EmbeddingQueue | LabelQueue]:
        """A model that gives pairs of texts a value, or texts vectors, with the queue of that.

        Raises:
            ApiError: there is none, or it gives neither.
        """
        served = self.model(name, request)
        queue = _ranking_queue(served)
        if queue is None:
            fault = "gives neither vectors nor values of pairs"
            raise self._wrong_kind(name, fault, lambda other: _ranking_queue(other) is not None)
        return served, queue

    def _wrong_kind(self, name: str, fault: str, is_right: Callable[[ServedModel], bool]) -> ApiError:
        others = [other.name for other in self.models.values() if is_right(other)]
        rest = f"of the models here these do: {list_names(others)}" if others else "no model here does"
        return ApiError(400, f"{name} {fault}; {rest}", "model", "model_kind")


def _ranking_queue(served: ServedModel) -> EmbeddingQueue | LabelQueue | None:
    """What scores documents: a head that gives values, else vectors."""
    if served.labels is not None and not served.labels.labels:
        return served.labels
    return served.embeddings


def service_of(request: Request) -> Service:
    """The server's state."""
    service: Service = request.app.state.service
    return service
