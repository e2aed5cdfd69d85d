"""lmworks serve in a process of its own: names, refusals, signals, the log."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tiny_model import save_tiny
from tiny_server import NO_END

from lmworks.base.errors import InputError
from lmworks.commands import serve
from lmworks.commands.main import main
from lmworks.kernels.native_module import native_module

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

MESSAGES = [{"role": "user", "content": "a secret question"}]


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny", context=200_000)


@contextmanager
def serving(
    *arguments: str, stderr: Any = subprocess.PIPE, before: str = "pass"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the URL that it prints; ``before``: what it does first, in Python."""
    code = f"import sys; {before}; from lmworks.commands.main import main; sys.exit(main(sys.argv[1:]))"
    port = [] if "--port" in arguments else ["--port", "0"]
    command = [sys.executable, "-c", code, "serve", *arguments, *port]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, "LMWORKS_API_KEY": ""}
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.search(r"serving at (\S+)/v1", line):
                yield process, match[1]
                return
        raise AssertionError(process.communicate()[1])
    finally:
        process.kill()
        process.wait()


def post(url: str, **fields: object) -> urllib.request.Request:
    body = json.dumps({"messages": MESSAGES, "logit_bias": NO_END, **fields}).encode()
    return urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})


def test_sigterm_lets_running_requests_finish_and_the_log_has_no_texts(folder):
    with serving(str(folder), f"other={folder}") as (process, url):
        with urllib.request.urlopen(f"{url}/v1/models") as response:
            assert [entry["id"] for entry in json.load(response)["data"]] == ["tiny", "other"]
        with urllib.request.urlopen(post(url, model="other", max_tokens=3000, stream=True)) as stream:
            assert stream.readline().startswith(b"data: ")
            process.send_signal(signal.SIGTERM)
            lines = [line for line in stream if line.strip()]
        assert lines[-1] == b"data: [DONE]\n"
        assert json.loads(lines[-2][6:])["choices"][0]["finish_reason"] == "length"
        _, log = process.communicate()
        assert process.returncode == 0
    entries = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (asked,) = [entry for entry in entries if entry.get("path") == "/v1/chat/completions"]
    assert asked["event"] == "request"
    assert (asked["status"], asked["model"], asked["completion_tokens"]) == (200, "other", 3000)
    assert asked["finish_reasons"] == ["length"]
    assert re.fullmatch("[0-9a-f]{24}", asked["id"])
    assert asked["first_token_seconds"] <= asked["seconds"]
    assert "secret" not in log


def test_what_is_not_done_in_time_is_cut_off(folder):
    with serving(str(folder), "--stop-limit", "1s") as (process, url):
        with urllib.request.urlopen(post(url, model="tiny", stream=True)) as stream:
            assert stream.readline().startswith(b"data: ")
            process.send_signal(signal.SIGTERM)
            lines = []
            with suppress(OSError, http.client.HTTPException):
                lines = [line for line in stream if line.strip()]
        assert not lines or lines[-1] != b"data: [DONE]\n"
        process.communicate()
        assert process.returncode == 0


def test_the_second_opening_serves_without_torch(folder, tmp_path):
    """And the same answer."""
    answers = []
    for _ in range(2):
        with serving(str(folder)) as (process, url):
            with urllib.request.urlopen(post(url, model="tiny", temperature=0, max_tokens=9)) as response:
                answers.append(json.load(response)["choices"])
            maps = Path(f"/proc/{process.pid}/maps")
            has_torch = "libtorch" in maps.read_text() if maps.exists() else False
    assert answers[0] == answers[1]
    assert not has_torch


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], ["without an API key", "--api-key-file"]),
        (["--port", "99999"], ["port", "65535"]),
        (["--api-key-file", "nowhere.txt"], ["nowhere.txt", "cannot be read"]),
        (["--cache-memory", "much"], ["cache_memory", "no size of memory"]),
        (["--paralell", "4"], ["did you mean parallel"]),
        (["--tls-key", "key.pem"], ["--tls-certificate FILE"]),
        (["--tls-certificate", "nowhere.pem"], ["nowhere.pem", "cannot be used"]),
        (["--cors-origins", "[example.org/page]"], ["cors_origins", "no origin"]),
        (["--cors-origins", "['*']"], ["every web page"]),
    ],
)
def test_wrong_options_are_refused(folder, arguments, words, capsys, monkeypatch):
    monkeypatch.delenv("LMWORKS_API_KEY", raising=False)
    assert main(["serve", str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)


def test_a_taken_port_is_refused(folder, capsys):
    from lmworks.serve.server import bind

    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        assert main(["serve", str(folder), "--port", str(port)]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_missing_packages_are_named(folder, capsys, monkeypatch):
    monkeypatch.setattr(serve, "PACKAGES", ("uvicorn", "no_such_package"))
    assert main(["serve", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "no_such_package" in error
    assert "pip install 'lmworks[serve]'" in error


def test_names_are_those_of_sources_or_given(tmp_path):
    folder = tmp_path / "a=b"
    folder.mkdir()
    words = [str(folder), "mine=runs/x", "hub:owner/name", "pypi:dist==1.0", "smollm2-135m-instruct"]
    assert serve.named_sources(words) == {
        "a=b": str(folder),
        "mine": "runs/x",
        "owner/name": "hub:owner/name",
        "dist==1.0": "pypi:dist==1.0",
        "smollm2-135m-instruct": "smollm2-135m-instruct",
    }
    with pytest.raises(InputError, match="would both be called 'x'"):
        serve.named_sources(["x=runs/a", "x=runs/b"])
