"""A tiny model, its scheduler without a server, and a server on the loopback in a thread of this process."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tiny_model import save_tiny

from lmworks.generate.sampling import SamplingSettings
from lmworks.language_model.opening import open_saved_model
from lmworks.serve.request import Event, Failed, Finished, GenerationRequest, Piece
from lmworks.serve.scheduler import Observer, Scheduler
from lmworks.serve.served_model import ServedModel, serve_model
from lmworks.serve.settings import ServeSettings
from lmworks.serve.token_choice import ChoiceSettings, TokenScore

NAME = "tiny"
SPECIALS = range(10)
"""Ids of the tiny model's special tokens, of which two end a text."""
NO_END = {str(token): -100.0 for token in SPECIALS}
"""A ``logit_bias`` with which it writes words up to the limit."""


def open_tiny(folder: Path, context: int = 512) -> Any:
    """A tiny model with large random weights, so that each prompt goes on otherwise, computed by the native engine."""
    model = open_saved_model(save_tiny(folder / "tiny", tied=False, context=context))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * (0.3 if weight.ndim > 1 else 0.0))
    return model.prepare("float32")


@dataclass
class Asked:
    """A request that was submitted, and all its events so far."""

    events: list[Event] = field(default_factory=list)
    request: GenerationRequest = field(init=False)

    def text(self, index: int = 0) -> str:
        return "".join(event.text for event in self.of(Piece, index))

    def scores(self, index: int = 0) -> list[TokenScore]:
        return [score for event in self.of(Piece, index) for score in event.scores]

    def of(self, kind: type, index: int) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind) and event.index == index]

    def reason(self, index: int = 0) -> str:
        (finished,) = self.of(Finished, index)
        return finished.reason

    @property
    def error(self) -> Exception | None:
        return next((event.error for event in self.events if isinstance(event, Failed)), None)


class Served:
    """A model's scheduler, whose turns a test takes itself."""

    def __init__(self, model: Any, **settings: Any) -> None:
        self.model: ServedModel = serve_model(NAME, model, ServeSettings(**settings), Observer())
        assert self.model.scheduler is not None
        self.scheduler: Scheduler = self.model.scheduler

    def ask(
        self,
        *prompts: str | Sequence[int],
        limit: int = 12,
        settings: ChoiceSettings | None = None,
        time_limit: float = 1000.0,
        client: str = "",
        **sampling: Any,
    ) -> Asked:
        """Submit a request with a choice for each prompt."""
        asked = Asked()
        asked.request = GenerationRequest(asked.events.append, time_limit, client)
        settings = settings or ChoiceSettings(SamplingSettings(**sampling), top_log_probabilities=0)
        for prompt in prompts:
            ids = self.model.text(prompt) if isinstance(prompt, str) else prompt
            self.model.add_choice(asked.request, ids, limit, settings, 0)
        self.scheduler.submit(asked.request)
        return asked

    def finish(self) -> None:
        while self.scheduler.turn():
            pass


def ask_json(url: str, path: str, **fields: Any) -> tuple[int, Any]:
    """Status and answer of a JSON object that is posted."""
    body = json.dumps(fields).encode()
    request = urllib.request.Request(f"{url}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@contextmanager
def running(
    models: dict[str, Any], services: list[Any] | None = None, keys: Sequence[str] = (), **settings: Any
) -> Iterator[str]:
    """A server of these models; its URL. Its state is appended to ``services``."""
    from lmworks.serve.access import ApiKeys
    from lmworks.serve.app import make_app, make_service
    from lmworks.serve.server import bind, certificate_files, make_server, url_of

    service = make_service(models, ServeSettings(**settings))
    if services is not None:
        services.append(service)
    with bind("127.0.0.1", 0) as listener:
        certificate = certificate_files(service.settings)
        server = make_server(make_app(service, ApiKeys(keys)), 5.0, certificate)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield url_of(listener, "https" if certificate else "http")
        finally:
            server.should_exit = True
            thread.join()


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    """Wait for something that is bound to come; fail where it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)
