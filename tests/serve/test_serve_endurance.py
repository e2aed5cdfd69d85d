"""What a server lives through: a thousand hang-ups, 64 clients at a time, a replaced model, a full disk."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from tiny_model import save_tiny
from tiny_server import NAME, NO_END, ask_json, open_tiny, running, wait_until

from lmworks.kernels.native_module import native_module
from lmworks.language_model import engine_cache
from lmworks.language_model.opening import open_saved_model

pytest.importorskip("uvicorn")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(native_module() is None, reason="no native kernels")]

MESSAGES = [{"role": "user", "content": "Who are you?"}]
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory) -> Any:
    return open_tiny(tmp_path_factory.mktemp("model"), context=20_000)


@pytest.fixture(name="alone", scope="module")
def _alone(tmp_path_factory) -> Any:
    """The same model in an engine of its own."""
    return open_tiny(tmp_path_factory.mktemp("alone"), context=20_000)


def is_idle(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/metrics") as response:
        lines = response.read().decode().splitlines()
    return not any(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith(("lmworks_answers_r", "lmworks_answers_w"))
    )


def answer_of(url: str) -> Any:
    return ask_json(url, "/v1/chat/completions", model=NAME, messages=MESSAGES, temperature=0, max_tokens=8)


def test_a_thousand_connects_and_hangups_leave_a_server_that_answers(model):
    """Cut anywhere in the head, in the body, and while the answer is streamed; garbage, and half-open connections."""
    body = json.dumps({"model": NAME, "messages": MESSAGES, "logit_bias": NO_END, "stream": True}).encode()
    whole = f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body
    draw = random.Random(5)
    with running({NAME: model}, parallel=4) as url:
        place = urlsplit(url)
        before, expected = psutil.Process().num_fds(), answer_of(url)
        half_open = [socket.create_connection((place.hostname, place.port)) for _ in range(100)]
        for connection in half_open:
            connection.sendall(whole[: draw.randrange(len(HEAD))])
        for number in range(1000):
            with socket.create_connection((place.hostname, place.port)) as connection:
                if number % 10 == 0:
                    connection.sendall(draw.randbytes(300))
                elif number % 10 == 1:
                    connection.sendall(whole)
                    connection.recv(draw.randrange(1, 500))
                else:
                    connection.sendall(whole[: draw.randrange(len(whole))])
        assert answer_of(url)[1]["choices"] == expected[1]["choices"]
        for connection in half_open:
            connection.close()
        wait_until(lambda: is_idle(url))
        wait_until(lambda: psutil.Process().num_fds() <= before)


def test_64_clients_get_what_each_gets_alone_and_memory_stays(model, alone):
    def ask(url: str, number: int) -> tuple[str, str]:
        messages = [{"role": "user", "content": f"{number} " + "The sea is blue. " * (number % 30)}]
        fields = {"model": NAME, "messages": messages, "temperature": 0, "max_tokens": 5 + number % 20}
        status, answer = ask_json(url, "/v1/chat/completions", **fields)
        assert status == 200, answer
        (choice,) = answer["choices"]
        reply = alone.chat(messages, max_tokens=fields["max_tokens"], temperature=0, details=True)
        assert choice["finish_reason"] == ("length" if reply.stop_reason == "length" else "stop")
        assert answer["usage"]["completion_tokens"] == reply.usage.completion_tokens
        return choice["message"]["content"], reply.text

    process, sizes = psutil.Process(), []
    with running({NAME: model}) as url, ThreadPoolExecutor(64) as pool:
        for turn in range(4):
            numbers = range(turn * 400, turn * 400 + 400)
            texts = list(pool.map(lambda number: ask(url, number), numbers))
            assert all(served == expected for served, expected in texts)
            sizes.append(process.memory_info().rss)
    assert sizes[3] - sizes[1] < 64e6, sizes


def test_a_slow_reader_does_not_hold_others_up(model):
    """Its answer waits in the socket's buffers, and in the server's queue."""
    fields = {"model": NAME, "messages": MESSAGES, "logit_bias": NO_END, "max_tokens": 4000, "stream": True}
    with running({NAME: model}) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)
        connection.request("POST", "/v1/chat/completions", json.dumps(fields), {"Content-Type": "application/json"})
        assert answer_of(url)[0] == 200
        wait_until(lambda: is_idle(url), 300)
        text = connection.getresponse().read()
    assert text.endswith(b"data: [DONE]\n\n")
    assert text.count(b"data: ") >= 100


@pytest.mark.parametrize("is_cached", [False, True])
def test_a_model_that_is_replaced_while_it_runs_answers_as_before(tmp_path, monkeypatch, is_cached):
    from test_serve_command import serving

    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", str(tmp_path / "engines"))
    folder = save_tiny(tmp_path / NAME, context=2000)
    if is_cached:
        engine_cache.store(open_saved_model(folder).prepare("float32"))
    with serving(str(folder)) as (process, url):
        expected = answer_of(url)
        other = save_tiny(tmp_path / "other", seed=1, context=2000)
        os.replace(other / "model.safetensors", folder / "model.safetensors")
        for path in (tmp_path / "engines").rglob("*.*"):
            path.unlink()
        assert answer_of(url)[1]["choices"] == expected[1]["choices"]
        assert process.poll() is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_without_room_stops_no_answer(tmp_path):
    from test_serve_command import serving

    folder = save_tiny(tmp_path / NAME)
    engine_cache.store(open_saved_model(folder).prepare("float32"))  # else it says so where there is no room
    with open("/dev/full", "w") as full, serving(str(folder), stderr=full) as (process, url):
        for _ in range(3):
            assert answer_of(url)[0] == 200
        assert process.poll() is None


def test_without_room_for_the_packed_weights_it_serves_all_the_same(tmp_path, monkeypatch):
    from test_serve_command import serving

    folder, engines = save_tiny(tmp_path / NAME), tmp_path / "engines"
    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", str(engines))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    with serving(str(folder), before=limit) as (process, url):
        expected = answer_of(url)
        assert expected[0] == 200
        assert process.poll() is None
    assert not [path for path in engines.rglob("*") if path.is_file()]
    with serving(str(folder)) as (process, url):
        assert answer_of(url)[1]["choices"] == expected[1]["choices"]


def test_a_server_that_was_killed_starts_again_and_answers_as_before(tmp_path, monkeypatch):
    """Killed in the midst of an answer, and at some moments of its start."""
    from test_serve_command import serving

    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", str(tmp_path / "engines"))
    folder, draw = save_tiny(tmp_path / NAME, context=200_000), random.Random(7)
    command = [sys.executable, "-m", "lmworks.commands.main", "serve", str(folder), "--port", "0"]
    for _ in range(5):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starting:
            time.sleep(draw.uniform(0.5, 5.0))
            starting.kill()
    with serving(str(folder)) as (process, url):
        expected, port = answer_of(url), str(urlsplit(url).port)
        fields = {"model": NAME, "messages": MESSAGES, "logit_bias": NO_END, "max_tokens": 100_000, "stream": True}
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps(fields), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.readline().startswith(b"data: ")
        process.kill()
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert not response.read().endswith(b"data: [DONE]\n\n")
    with serving(str(folder), "--port", port) as (_, url):
        assert urlsplit(url).port == int(port)
        assert answer_of(url)[1]["choices"] == expected[1]["choices"]
