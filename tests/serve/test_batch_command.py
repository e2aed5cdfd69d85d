"""lmworks batch: the answers of the server, one line each; killed and begun again, none is lost or written twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_adapter_api import save_lora
from tiny_model import save_tiny
from tiny_server import NAME, NO_END, ask_json, running, wait_until

import lmworks
from lmworks.commands.main import main
from lmworks.kernels.native_module import native_module

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / NAME, context=200_000)


def chat(number: int, **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": f"Number {number}?"}], "temperature": 0, "max_tokens": 5, **fields}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def write(path: Path, requests: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(request) + "\n" for request in requests))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_are_those_of_the_server(model, tmp_path, capsys):
    text = {"custom_id": "text", "url": "/v1/completions", "body": {"prompt": "The", "temperature": 0, "model": NAME}}
    wrong = {"custom_id": "wrong", "url": "/v1/completions", "body": {"prompt": "The", "temprature": 0}}
    requests = [*map(chat, range(40)), text, wrong]
    path, out = write(tmp_path / "requests.jsonl", requests), tmp_path / "answers.jsonl"
    assert main(["batch", str(model), str(path), "--out", str(out), "--parallel", "4"]) == 0
    assert "42 answers, 1 of them with an error" in capsys.readouterr().out
    answers = {answer["custom_id"]: answer for answer in read(out)}
    assert len(answers) == len(read(out)) == 42
    assert answers["wrong"]["response"]["status_code"] == 400
    assert answers["wrong"]["response"]["body"]["error"]["param"] == "temprature"
    from lmworks.language_model.opening import open_saved_model

    with running({NAME: open_saved_model(model).prepare("float32")}) as url:
        for request in (chat(3), chat(39), text):
            response = answers[request["custom_id"]]["response"]
            expected = ask_json(url, request["url"], **{"model": NAME, **request["body"]})[1]
            assert response["status_code"] == 200
            assert response["body"]["choices"] == expected["choices"]
            assert response["body"]["id"].endswith(response["request_id"])


def test_after_a_kill_it_goes_on_where_it_was(model, tmp_path, capsys):
    requests = [chat(number, max_tokens=40, logit_bias=NO_END) for number in range(60)]
    path, out = write(tmp_path / "requests.jsonl", requests), tmp_path / "answers.jsonl"
    code = "import sys; from lmworks.commands.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["batch", str(model), str(path), "--out", str(out), "--parallel", "2"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: (out.exists() and out.stat().st_size > 1_000) or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
    with open(out, "ab") as file:
        file.write(b'{"custom_id": "r59", "resp')  # what a kill in mid-line leaves
    before = out.read_bytes().rpartition(b"\n")[0]
    count = before.count(b"\n") + 1
    assert 0 < count < 60
    assert main(words) == 0
    assert f"{count} of 60 requests were answered before" in capsys.readouterr().err
    assert out.read_bytes().startswith(before)
    assert sorted(answer["custom_id"] for answer in read(out)) == sorted(request["custom_id"] for request in requests)
    assert all(answer["response"]["status_code"] == 200 for answer in read(out))
    assert main(words) == 0
    assert "all answered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "no JSON object"),
        (json.dumps(chat(1)), "a second request 'r1'"),
        (json.dumps({**chat(2), "url": "/v1/nothing"}), "url is '/v1/nothing'"),
        (json.dumps({**chat(2), "method": "GET"}), "method is 'GET'"),
        (json.dumps({**chat(2), "custom_id": 5}), "custom_id must be a text"),
        (json.dumps({**chat(2), "body": []}), "body must be"),
        (json.dumps({**chat(2), "priority": 1}), "no key 'priority'"),
        (json.dumps(chat(2, stream=True)), "written whole"),
        (json.dumps(chat(2, model="gpt-4o")), "lmworks batch gpt-4o=MODEL"),
    ],
)
def test_lines_that_are_no_requests_are_named(model, tmp_path, capsys, line, words):
    path = tmp_path / "requests.jsonl"
    path.write_text(f"{json.dumps(chat(1))}\n\n{line}\n")
    assert main(["batch", str(model), str(path), "--out", str(tmp_path / "answers.jsonl")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert f"{path}:3" in error


@pytest.mark.parametrize("content", ["text\n", '{"custom_id": "other", "response": {}}\n', '{"a": 1}\n'])
def test_a_file_that_holds_something_else_is_left_alone(model, tmp_path, capsys, content):
    path, out = write(tmp_path / "requests.jsonl", [chat(1)]), tmp_path / "answers.jsonl"
    out.write_text(content)
    assert main(["batch", str(model), str(path), "--out", str(out)]) == 2
    assert "choose another file for --out" in capsys.readouterr().err
    assert out.read_text() == content


def test_requests_are_not_overwritten_and_must_be_there(model, tmp_path, capsys):
    path = write(tmp_path / "requests.jsonl", [chat(1)])
    assert main(["batch", str(model), str(path), "--out", str(path)]) == 2
    assert "is the file of the requests" in capsys.readouterr().err
    assert main(["batch", str(model), str(tmp_path / "no.jsonl"), "--out", str(tmp_path / "a.jsonl")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.slow
def test_a_full_disk_is_told_and_with_room_it_goes_on(model, tmp_path):
    requests = [chat(number) for number in range(30)]
    path, out = write(tmp_path / "requests.jsonl", requests), tmp_path / "answers.jsonl"
    one = write(tmp_path / "one.jsonl", requests[:1])
    assert (
        main(["batch", str(model), str(one), "--out", str(tmp_path / "one-answer.jsonl")]) == 0
    )  # the model is cached
    code = """if True:
        import resource, sys
        from lmworks.commands.main import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        sys.exit(main(sys.argv[1:]))"""
    words = ["batch", str(model), str(path), "--out", str(out)]
    full = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert full.returncode == 2
    assert "no room left" in full.stderr
    assert main(words) == 0
    assert sorted(answer["custom_id"] for answer in read(out)) == sorted(request["custom_id"] for request in requests)


@pytest.fixture(name="adapters", scope="module")
def _adapters(model) -> Path:
    folder = model.parent / "adapters"
    save_lora(model, folder / "faq", 1)
    save_lora(save_tiny(model.parent / "other", seed=5, context=512), folder / "foreign", 2)
    return folder


def test_adapters_are_asked_for_by_their_names(model, adapters, tmp_path):
    requests = [chat(1), chat(2, model="faq"), chat(3, model=NAME), chat(4, model="faq")]
    path, out = write(tmp_path / "requests.jsonl", requests), tmp_path / "answers.jsonl"
    assert main(["batch", str(model), str(path), "--out", str(out), "--adapters", str(adapters)]) == 0
    answers = {answer["custom_id"]: answer["response"]["body"] for answer in read(out)}
    for name, source in ((NAME, model), ("faq", adapters / "faq")):
        opened = lmworks.load(source).prepare("float32")
        for request in requests:
            if request["body"].get("model", NAME) == name:
                body = answers[request["custom_id"]]
                expected = opened.chat(request["body"]["messages"], max_tokens=5, temperature=0)
                assert (body["model"], body["choices"][0]["message"]["content"]) == (name, expected)


@pytest.mark.parametrize(
    ("asked", "words"),
    [("another", ["asks the model 'another'", "tiny, faq, foreign"]), ("foreign", ["'foreign'", "another model"])],
)
def test_an_adapter_that_is_not_there_is_named_before_anything_is_answered(
    model, adapters, tmp_path, capsys, asked, words
):
    path, out = write(tmp_path / "requests.jsonl", [chat(1), chat(2, model=asked)]), tmp_path / "answers.jsonl"
    assert main(["batch", str(model), str(path), "--out", str(out), "--adapters", str(adapters)]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert not out.exists()
