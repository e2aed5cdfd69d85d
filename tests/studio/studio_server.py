"""A studio on the loopback in a thread of this process, and a folder with something to show in it."""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_model import save_tiny

import lmworks
from lmworks.commands.opening import open_writer
from lmworks.language_model.opening import open_saved_model
from lmworks.serve.app import make_service
from lmworks.serve.server import bind, make_server, url_of
from lmworks.serve.settings import ServeSettings
from lmworks.studio.access import PAGE, cookie_name
from lmworks.studio.app import make_studio
from lmworks.studio.folders import Folders

TOKEN = "a-token-of-the-tests"
SCRIPT = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title='ran'\">"
"""What a model or a file must not get done."""


@dataclass
class Studio:
    """One that runs.

    Attributes:
        url: without a path.
        port: of it.
    """

    url: str
    port: int

    @property
    def address(self) -> str:
        """The one that is printed at the start."""
        return f"{self.url}{PAGE}?token={TOKEN}"

    def ask(
        self, method: str, path: str, body: Any = None, cookie: str | None = TOKEN, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body (of JSON what it says) and headers; of a header's name ``_`` stands for ``-``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if cookie is not None:
            sent["Cookie"] = f"{cookie_name(self.port)}={cookie}"
        if body is not None:
            sent["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, None if body is None else json.dumps(body).encode(), sent)
        response = connection.getresponse()
        content, kept = response.read(), {name.lower(): value for name, value in response.getheaders()}
        connection.close()
        is_json = kept.get("content-type") == "application/json"
        return response.status, json.loads(content) if is_json else content.decode(), kept


def open_model(source: str) -> Any:
    """As the command opens one."""
    return open_writer(argparse.Namespace(model=source, base=None, backend=None, kv_cache=None))


@contextmanager
def running(roots: Sequence[Path], models: dict[str, Any] | None = None, **settings: Any) -> Iterator[Studio]:
    """A studio on some folders, with models that are open from the start."""
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        service = make_service(models or {}, ServeSettings(**settings))
        server = make_server(make_studio(service, Folders(roots), open_model, TOKEN, port), 5.0)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield Studio(url_of(listener), port)
        finally:
            server.should_exit = True
            thread.join()


def save_talker(folder: Path, seed: int = 3, context: int = 4096) -> Path:
    """A tiny model with large random weights, so that each prompt goes on otherwise."""
    model = open_saved_model(save_tiny(folder, tied=False, context=context))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * (0.3 if weight.ndim > 1 else 0.0))
    model.save(folder, overwrite=True)
    return folder


def make_runs(folder: Path) -> list[str]:
    """Two runs of n-gram models on text that is a script; their names below the folder."""
    text = folder / "pages.txt"
    text.write_text("\n\n".join(f"page {n}: {SCRIPT}" for n in range(40)), encoding="utf-8")
    for preset in ("unigram", "ngram-5"):
        data = {"source": str(text), "document": "paragraph"}
        lmworks.pretrain(preset, data, tokenizer={"kind": "char"}, out=folder / "runs" / preset)
    return ["runs/unigram", "runs/ngram-5"]
