"""The servers of the serving benchmark, each at its best settings, started on a free port of the loopback.

llama.cpp's as llama-cpp-python offers it answers one request after the other; by default it breaks an answer off when
another request comes, and keeps the logits of every token, which both cost it: both are switched off. Its flash
attention is an arm of its own. transformers' own server batches continuously or answers one after the other: two arms.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import arms

from lmworks.base.processor import threads

OURS, LLAMA_CPP, TRANSFORMERS = "lmworks serve", "llama.cpp server", "transformers serve"
NEEDED = {
    OURS: ("starlette", "uvicorn", "prometheus_client"),
    LLAMA_CPP: ("llama_cpp", "fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings"),
    TRANSFORMERS: ("transformers", "fastapi", "uvicorn", "openai"),
}
"""Modules without which a server is left out."""
CONTEXT = 2048
START_LIMIT, STOP_LIMIT = 180.0, 20.0  # seconds


@dataclass(frozen=True)
class Server:
    """One server with its model.

    Attributes:
        name: the server first.
        command: with ``{port}`` where the port stands.
        model: as requests call it.
        ready: a path that answers with status 200 once it can be asked.
        variables: of its environment, beside the present ones.
    """

    name: str
    command: tuple[str, ...]
    model: str
    ready: str = "/v1/models"
    variables: tuple[tuple[str, str], ...] = ()


def servers(file: Path, folder: Path) -> list[Server]:
    """All servers whose modules are installed.

    Args:
        file: the model as a GGUF file: lmworks and llama.cpp.
        folder: the same model as a Hugging Face folder: transformers.
    """
    python = sys.executable
    ours = (python, "-m", "lmworks.commands.main", "serve", f"bench={file}", "--port", "{port}")
    llama = (python, "-m", "llama_cpp.server", "--model", str(file), "--model_alias", "bench", "--port", "{port}")
    llama += ("--host", "127.0.0.1", "--n_ctx", str(CONTEXT), "--interrupt_requests", "false", "--logits_all", "false")
    llama += ("--n_threads", str(threads()), "--n_threads_batch", str(threads()), "--verbose", "false")
    call = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
    theirs = (python, "-c", call, "serve", str(folder), "--host", "127.0.0.1", "--port", "{port}", "--device", "cpu")
    offline = (("HF_HUB_OFFLINE", "1"), ("HF_HUB_DISABLE_TELEMETRY", "1"))
    listed = [Server(OURS, ours, "bench")]
    listed += [Server(LLAMA_CPP, (*llama, "--flash_attn", "false"), "bench")]
    listed += [Server(f"{LLAMA_CPP}, flash attention", (*llama, "--flash_attn", "true"), "bench")]
    for precision in ("float32", "bfloat16"):
        if arms.worth_running(precision):
            command = (*theirs, "--dtype", precision)
            name = f"{TRANSFORMERS} {precision}"
            listed.append(Server(name, command, str(folder), "/health", offline))
            batching = (*command, "--continuous-batching")
            listed.append(Server(f"{name}, continuous batching", batching, str(folder), "/health", offline))
    return [server for server in listed if not lacking(server.name)]


def lacking(name: str) -> list[str]:
    """The modules that a server needs and this Python has not."""
    needed = next(modules for server, modules in NEEDED.items() if name.startswith(server))
    return [module for module in needed if find_spec(module) is None]


def missing() -> list[str]:
    """A line for each server that is left out."""
    return [f"{name} is left out, as {', '.join(lacking(name))} is not installed" for name in NEEDED if lacking(name)]


@contextmanager
def running(server: Server) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server and wait until it can be asked; its ``HOST:PORT`` and process.

    Raises:
        arms.Failed: it ended, or did not answer in time; with the end of what it printed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [word.replace("{port}", str(port)) for word in server.command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **dict(server.variables)})
        try:
            _wait(server, process, port, log)
            yield f"127.0.0.1:{port}", process
        finally:
            process.terminate()
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes], port: int, log: tempfile.SpooledTemporaryFile) -> None:
    end = time.monotonic() + START_LIMIT
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{server.ready}", timeout=5):
                return
        except (urllib.error.URLError, OSError, ValueError):
            if process.poll() is not None or time.monotonic() > end:
                log.seek(0)
                printed = log.read().decode(errors="replace")[-3000:]
                ended = f"ended with {process.returncode}" if process.poll() is not None else "did not answer in time"
                raise arms.Failed(arms.without_absolute_paths(f"{server.name} {ended}:\n{printed}")) from None
            time.sleep(0.1)
