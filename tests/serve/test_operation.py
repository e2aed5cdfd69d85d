"""Limits, hang-ups, keys, counts and the log of a server, over sockets."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from tiny_server import NAME, NO_END, open_tiny, running, wait_until

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")

KEY = "k" * 40
MESSAGES = [{"role": "user", "content": "Who are you?"}]
LONG = {"model": NAME, "messages": MESSAGES, "max_tokens": 100_000, "logit_bias": NO_END}


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory) -> Any:
    """A model whose context is long enough for answers that do not end during a test."""
    return open_tiny(tmp_path_factory.mktemp("model"), context=200_000)


@pytest.fixture(name="url")
def _url(model):
    with running({NAME: model}, parallel=1, queue_size=1) as url:
        yield url


@pytest.fixture(name="protocol", params=["h11_impl.H11Protocol", "httptools_impl.HttpToolsProtocol"])
def _protocol(request, monkeypatch) -> None:
    """Each of uvicorn's protocols that is installed, in turn."""
    from lmworks.serve.connections import HeadLimits

    name, _, kind = request.param.partition(".")
    module = pytest.importorskip(f"uvicorn.protocols.http.{name}", exc_type=ImportError)
    bases = (HeadLimits, getattr(module, kind))
    monkeypatch.setattr("lmworks.serve.server.TimedProtocol", type("Protocol", bases, {}))


def client_of(url: str, key: str = "none") -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def ask(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Status, body (of JSON what it says) and headers."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"Content-Type": "application/json", **named} if body is not None else named)
    response = connection.getresponse()
    content, kept = response.read(), {name.lower(): value for name, value in response.getheaders()}
    connection.close()
    is_json = kept.get("content-type") == "application/json"
    return response.status, json.loads(content) if is_json else content.decode(), kept


def count(url: str, name: str) -> float:
    """The sum of a metric over its labels."""
    text = ask(url, "GET", "/metrics")[1]
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))


def test_beyond_the_queue_clients_are_told_to_come_again_and_a_hangup_makes_room(url):
    client = client_of(url)
    writing = client.chat.completions.create(**LONG, stream=True)
    next(writing)
    wait_until(lambda: count(url, "lmworks_answers_running") == 1)
    waiting = client.chat.completions.create(**{**LONG, "max_tokens": 3}, stream=True)
    next(waiting)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**LONG)
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert refused.value.code == "queue_full"
    assert ask(url, "GET", "/ready")[0] == 503
    writing.close()
    assert [chunk.choices[0].finish_reason for chunk in waiting][-1] == "length"
    wait_until(lambda: count(url, "lmworks_answers_running") == 0)
    assert ask(url, "GET", "/ready")[0] == 200
    assert count(url, "lmworks_answers_total") == 1  # the one that waited; the other was not finished


def test_a_client_that_hangs_up_before_its_answer_frees_its_place(url):
    body = json.dumps(LONG).encode()
    place = urlsplit(url)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((place.hostname, place.port)) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: count(url, "lmworks_answers_running") == 1)
    wait_until(lambda: count(url, "lmworks_answers_running") == 0)
    assert count(url, "lmworks_answers_total") == 0
    assert count(url, "lmworks_requests_total") >= 1


def test_many_hangups_leave_a_server_that_answers(model, protocol):
    with running({NAME: model}, parallel=4) as url:
        body = json.dumps({**LONG, "stream": True}).encode()
        place = urlsplit(url)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        for number in range(100):
            with socket.create_connection((place.hostname, place.port)) as connection:
                connection.sendall(whole[: 1 + number * len(whole) // 70])
                if number > 90:  # the whole request was sent: an answer begins
                    connection.recv(100)
        wait_until(lambda: count(url, "lmworks_answers_running") + count(url, "lmworks_answers_waiting") == 0)
        answer = client_of(url).chat.completions.create(**{**LONG, "max_tokens": 4})
        assert answer.usage.completion_tokens == 4


def test_what_takes_too_long_is_told_so(model):
    with running({NAME: model}, time_limit=0.2) as url:
        client = client_of(url)
        with pytest.raises(openai.APIStatusError) as late:
            client.chat.completions.create(**LONG)
        assert (late.value.status_code, late.value.code) == (504, "time_limit")
        with pytest.raises(openai.APIError, match="which is the limit"):
            list(client.chat.completions.create(**LONG, stream=True))
        assert client.chat.completions.create(**{**LONG, "max_tokens": 2}).usage.completion_tokens == 2


def test_keys_are_asked_for(model):
    with running({NAME: model}, keys=[KEY, "other" * 8]) as url:
        for wrong in ("none", KEY[:-1], f"{KEY}k"):
            with pytest.raises(openai.AuthenticationError) as refused:
                client_of(url, wrong).models.list()
            assert refused.value.code == "invalid_api_key"
        assert [entry.id for entry in client_of(url, KEY).models.list()] == [NAME]
        assert ask(url, "GET", "/v1/models", Authorization=f"Basic {KEY}")[0] == 401
        assert ask(url, "GET", "/metrics")[0] == 401
        assert ask(url, "GET", "/health")[0] == 200
        assert ask(url, "GET", "/v1/models", Host="example.org", Authorization=f"Bearer {KEY}")[0] == 200


def test_without_keys_pages_of_other_sites_are_not_answered(url):
    """Neither by a name that was made to point here, nor by a form, which sends no JSON; no other origin may read."""
    assert ask(url, "GET", "/v1/models", Host="example.org:8080")[0] == 403
    body = json.dumps({"model": NAME, "messages": MESSAGES, "max_tokens": 2}).encode()
    assert ask(url, "POST", "/v1/chat/completions", body, Content_Type="text/plain")[0] == 415
    status, _, headers = ask(url, "POST", "/v1/chat/completions", body, Origin="https://example.org")
    assert status == 200
    assert not any(name.startswith("access-control") for name in headers)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b"[1]", 400, "must be a JSON object"),
        (b"{}", 400, "is missing"),
        (b'{"model": 5}', 400, "model"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "messages"),
        (b'{"model": "\\ud800", "messages": [{"role": "user", "content": "?"}]}', 404, "no model"),
        (b'{"model": "tiny", "messages": [5]}', 400, "messages"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "?"}], "seed": 1e400}', 400, "seed"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "?"}], "temperature": NaN}', 400, "temperature"),
        (b" " * 3_000, 413, "more than 2,000 bytes"),
    ],
)
def test_damaged_bodies_are_answered(model, body, status, words):
    limit = "200KB" if len(body) > 10_000 else "2KB"
    with running({NAME: model}, body_limit=limit) as url:
        answered, content, _ = ask(url, "POST", "/v1/chat/completions", body)
        assert answered == status
        assert words in content["error"]["message"]
        assert ask(url, "GET", "/health")[0] == 200


def test_a_client_with_many_requests_does_not_hold_up_another_one(model):
    """Clients are told apart by their keys."""
    services: list[Any] = []
    many, single = KEY, "other" * 8
    with running({NAME: model}, services, keys=[many, single], parallel=1) as url:
        scheduler = services[0].models[NAME].scheduler
        first, second = client_of(url, many), client_of(url, single)
        with ThreadPoolExecutor(12) as pool:
            answers = [
                pool.submit(first.chat.completions.create, **{**LONG, "max_tokens": 1500}, timeout=300)
                for _ in range(12)
            ]
            wait_until(lambda: scheduler.waiting() == 11)
            second.chat.completions.create(**{**LONG, "max_tokens": 2})
            assert sum(answer.done() for answer in answers) < 6
            assert all(answer.result().usage.completion_tokens == 1500 for answer in answers)


@pytest.mark.parametrize(
    "begin",
    [b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"GET /", b"\x16\x03\x01\x02\x00", b"\0" * 10, b""],
)
def test_a_head_without_end_is_cut_off(model, protocol, begin):
    with running({NAME: model}) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
            sent = 0
            with suppress(OSError):  # the server has closed the connection
                connection.sendall(begin)
                while sent < 20_000_000:
                    sent += connection.send(b"x" * 50_000 if sent % 100_000 else b"\r\nx: " + b"y" * 49_996)
            assert sent < 20_000_000
        assert ask(url, "GET", "/health")[0] == 200


def test_a_body_of_undeclared_length_is_cut_off_at_the_limit(model, protocol):
    with running({NAME: model}, body_limit="20KB") as url:
        place = urlsplit(url)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            with suppress(OSError):
                for _ in range(2000):
                    connection.sendall(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
            connection.settimeout(60)
            with suppress(ConnectionResetError):
                assert connection.recv(100).startswith(b"HTTP/1.1 413")
        assert ask(url, "GET", "/health")[0] == 200


def test_unknown_paths_and_methods_name_those_that_there_are(url):
    status, content, _ = ask(url, "GET", "/v1/nothing")
    assert status == 404
    assert "POST /v1/chat/completions" in content["error"]["message"]
    assert ask(url, "GET", "/v1/chat/completions")[0] == 405


def test_models_are_listed_and_shown(url):
    client = client_of(url)
    (listed,) = client.models.list().data
    shown = client.models.retrieve(NAME)
    assert listed == shown
    assert (shown.id, shown.object) == (NAME, "model")
    with pytest.raises(openai.NotFoundError, match="there are: tiny"):
        client.models.retrieve("another")


def test_texts_become_tokens_and_tokens_texts(url, model):
    def post(path: str, **fields: Any) -> Any:
        return ask(url, "POST", path, json.dumps({"model": NAME, **fields}).encode())[1]

    ids = model.tokenizer.encode("The sky, Zürich", special=True)
    assert post("/tokenize", prompt="The sky, Zürich") == {"tokens": ids, "count": len(ids), "context_length": 200_000}
    assert post("/detokenize", tokens=ids) == {"text": "The sky, Zürich"}
    with_template = post("/tokenize", messages=MESSAGES)["tokens"]
    assert post("/detokenize", tokens=with_template)["text"].startswith("<|im_start|>user\nWho are you?")
    assert "no token" in post("/detokenize", tokens=[99999])["error"]["message"]
    assert "messages" in post("/tokenize")["error"]["message"]


def test_requests_are_counted_and_have_their_ids(url):
    client = client_of(url)
    answer = client.chat.completions.create(**{**LONG, "max_tokens": 5}, extra_headers={"X-Request-Id": "mine-1"})
    assert answer._request_id == "mine-1"
    assert answer.id == "chatcmpl-mine-1"
    generated = ask(url, "GET", "/v1/models", X_Request_Id="not one\u00e9")[2]["x-request-id"]
    assert re.fullmatch("[0-9a-f]{24}", generated)
    assert count(url, r'lmworks_tokens_total\{kind="answer",model="tiny"\}') == 5
    assert count(url, "lmworks_time_to_first_token_seconds_count") == 1
    assert count(url, "lmworks_time_between_tokens_seconds_count") == 4


def test_a_client_that_sends_slowly_does_not_hold_others_up(url):
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port)) as slow:
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        results = []
        thread = threading.Thread(
            target=lambda: results.append(client_of(url).chat.completions.create(**{**LONG, "max_tokens": 3}))
        )
        thread.start()
        thread.join(60)
        assert results[0].usage.completion_tokens == 3


def test_the_counts_tell_of_the_queue_the_batch_and_the_cache(url):
    long = [{"role": "user", "content": "The sky is blue, and the sea is too. " * 5}]
    for _ in range(2):
        client_of(url).chat.completions.create(**{**LONG, "messages": long, "max_tokens": 4})
    assert count(url, "lmworks_batch_size_count") == 6
    assert count(url, "lmworks_batch_size_sum") == 6
    assert count(url, "lmworks_cache_bytes") > 0
    assert count(url, r'lmworks_tokens_total\{kind="reused",model="tiny"\}') >= 30
    assert count(url, "lmworks_answers_waiting") == 0


@pytest.mark.parametrize("keeps", [False, True])
def test_texts_are_in_the_log_where_they_are_asked_for_alone(model, caplog, keeps):
    caplog.set_level("INFO", "lmworks.serve")
    secret = [{"role": "user", "content": "a secret"}]
    with running({NAME: model}, log_texts=keeps) as url:
        client_of(url).chat.completions.create(**{**LONG, "messages": secret, "max_tokens": 2})
    (entry,) = [record.fields for record in caplog.records if record.fields["path"] == "/v1/chat/completions"]
    assert ("a secret" in json.dumps(entry)) is keeps
    assert entry["completion_tokens"] == 2


def test_pages_of_named_origins_may_ask(model):
    page = "https://example.org"
    with running({NAME: model}, keys=[KEY], cors_origins=[page]) as url:
        asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
        status, _, headers = ask(url, "OPTIONS", "/v1/chat/completions", Origin=page, **asked)
        assert (status, headers["access-control-allow-origin"]) == (200, page)
        status, _, headers = ask(url, "OPTIONS", "/v1/chat/completions", Origin="https://example.com", **asked)
        assert (status, headers.get("access-control-allow-origin")) == (400, None)
        status, _, headers = ask(url, "GET", "/v1/models", Origin=page)
        assert (status, headers["access-control-allow-origin"]) == (401, page)
        status, _, headers = ask(url, "GET", "/v1/models", Origin=page, Authorization=f"Bearer {KEY}")
        assert (status, headers["access-control-allow-origin"]) == (200, page)


@pytest.mark.parametrize("is_one_file", [False, True])
def test_https_is_served_by_a_certificate(model, tmp_path, is_one_file):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not here")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
    settings = {"tls_certificate": str(chain), "tls_key": str(key)}
    if is_one_file:
        chain.write_text(chain.read_text() + key.read_text())
        del settings["tls_key"]
    with running({NAME: model}, **settings) as url:
        assert url.startswith("https://")
        with urllib.request.urlopen(f"{url}/health", context=ssl.create_default_context(cafile=chain)) as response:
            assert json.load(response) == {"status": "ok"}


def test_the_api_is_described(url):
    from lmworks.serve.app import ROUTES

    description = ask(url, "GET", "/openapi.json")[1]
    assert description["openapi"] == "3.1.0"
    assert {*description["paths"]} == {route.path.replace(":path}", "}") for route in ROUTES}
    for path, operations in description["paths"].items():
        (operation,) = operations.values()
        assert operation["summary"], path
        if "requestBody" in operation:
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            schema = description["components"]["schemas"][reference.rpartition("/")[2]]
            assert {"model", "lora_name"} & {*schema["required"]}
            assert schema["additionalProperties"] is False


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: local"])
def test_a_connection_that_sends_no_request_is_closed(model, protocol, monkeypatch, sent):
    monkeypatch.setattr("lmworks.serve.connections.HEAD_SECONDS", 0.2)
    with running({NAME: model}) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
            connection.sendall(sent)
            assert connection.recv(100) == b""
        with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            connection.sendall(b"GET /hea")
            while connection.recv(1000):
                pass
        answer = client_of(url).chat.completions.create(**{**LONG, "max_tokens": 4})
        assert answer.usage.completion_tokens == 4
