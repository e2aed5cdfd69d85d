"""A studio with two tiny models that answer differently, in a thread of this process; and a client with its token."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from studio_server import TOKEN, running
from tiny_model import save_tiny

from lmworks.language_model.opening import open_saved_model
from lmworks.studio.access import PAGE

FIRST, SECOND = "first-model", "second-model"
PROMPTS = [f"Who is number {number}?" for number in range(8)]


def open_models(folder: Path, context: int = 256) -> dict[str, Any]:
    """Two models with large random weights, so that each prompt goes on otherwise."""
    models = {}
    for seed, name in enumerate((FIRST, SECOND)):
        model = open_saved_model(save_tiny(folder / name, tied=False, context=context, seed=seed))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.network.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * (0.3 if weight.ndim > 1 else 0.0))
        models[name] = model.prepare("float32")
    return models


class Refused(Exception):
    """What the studio answered instead: the status of HTTP, and the message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Studio:
    """A client of a studio."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token

    @property
    def address(self) -> str:
        """What the command prints."""
        return f"{self.url}{PAGE}?token={self.token}"

    def ask(self, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/studio/api/rate/{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, json.load(error)["error"]["message"]) from None

    def make(self, name: str = "first", **values: Any) -> str:
        """A new test of both models; its name."""
        settings = {"models": [FIRST, SECOND], "max_tokens": 8, **values.pop("settings", {})}
        return self.ask("tests", {"name": name, "prompts": PROMPTS, "settings": settings, **values})["test"]

    def answered(self, test: str) -> dict[str, Any]:
        """The test, once no answers are being made."""
        end = time.monotonic() + 60
        while (state := self.ask("test", {"test": test}))["is_answering"]:
            assert time.monotonic() < end, "the answers did not come"
            time.sleep(0.02)
        return state


@contextmanager
def running_studio(models: dict[str, Any], folder: Path) -> Iterator[Studio]:
    """A studio on a folder, with these models open."""
    with running([folder], models) as studio:
        yield Studio(studio.url, TOKEN)
