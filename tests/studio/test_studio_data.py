"""The tab Data: files that are taken in whole or not at all, and what is shown of them."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest

pytest.importorskip("uvicorn")

from studio_server import SCRIPT, TOKEN, running
from tiny_model import save_tiny
from tiny_tasks import bert_like

from lmworks.studio import data
from lmworks.studio.access import cookie_name

ROWS = [
    {"prompt": "Who?", "completion": "I"},
    {"prompt": "no answer"},
    {"prompt": "The sky is <|im_end|> blue", "completion": SCRIPT},
    {"prompt": "Long", "completion": "word " * 200},
]


@pytest.fixture(name="home", scope="module")
def _home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    save_tiny(home / "tiny", context=128)
    (home / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (home / "outside").mkdir()
    (home / "outside" / "secret.jsonl").write_text('{"text": "a secret"}\n')
    (home / "inside").mkdir()
    (home / "inside" / "tiny").symlink_to(home / "tiny")
    (home / "inside" / "faq.jsonl").write_bytes((home / "faq.jsonl").read_bytes())
    (home / "inside" / "folder").mkdir()
    (home / "inside" / "folder" / "link.jsonl").symlink_to(home / "outside" / "secret.jsonl")
    save_tiny(home / "inside" / "model", context=128)
    bert_like().save(home / "inside" / "bert")
    config = json.loads((home / "tiny" / "config.json").read_text())
    (home / "inside" / "bert" / "config.json").write_text(json.dumps({**config, "vocab_size": 1000}))
    (home / "inside" / "texts.jsonl").write_text('{"prompt": "The sky is blue"}\n')
    return home


@pytest.fixture(name="studio", scope="module")
def _studio(home):
    with running([home / "inside"]) as studio:
        yield studio


def show(studio, **values):
    return studio.ask("POST", "/studio/api/data/show", {"model": "model", "data": "faq.jsonl", **values})


def upload(studio, name, content):
    """Status and what is answered to a file that is sent as the page sends it."""
    connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=60)
    headers = {"Cookie": f"{cookie_name(studio.port)}={TOKEN}", "Content-Type": "application/octet-stream"}
    connection.request("POST", f"/studio/api/data/upload?name={name}", content, headers)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def files(home):
    """Everything in the folder of uploaded files, what is hidden too."""
    folder = home / "inside" / "data"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_what_carries_loss_is_what_training_learns(studio):
    status, shown, _ = show(studio)
    assert status == 200
    assert (shown["task"]["name"], shown["kind"], shown["template"]) == ("instructions", "completion", "chat template")
    (text,) = shown["examples"][0]["texts"]
    pieces = [token[1] for token in text["tokens"]]
    assert "".join(pieces) == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nI<|im_end|>\n"
    learned = [token[1] for token in text["tokens"] if token[2] == "loss"]
    assert "".join(learned) == "I<|im_end|>"
    assert shown["examples"][0]["place"] == "faq.jsonl:1"
    assert shown["counts"]["rows"] == 3
    assert shown["columns"] == {"prompt": "prompt", "completion": "completion"}


def test_problems_are_listed_by_row_and_a_run_would_stop_at_the_first(studio):
    _, shown, _ = show(studio)
    problems = [(problem["place"], problem["text"].split(":")[0], problem["example"]) for problem in shown["problems"]]
    assert problems == [
        ("faq.jsonl:2", "field 'completion' is missing", None),
        ("faq.jsonl:4", "cut", 2),
        ("faq.jsonl:3", "writes out a special token, which is read as such", 1),
    ]
    assert "a run would stop at the first bad row (1 in all)" in shown["refusal"]
    assert dict(shown["unusual"])["truncated rows"] == 1
    assert show(studio, settings={"data.on_bad_row": "skip"})[1]["refusal"] == ""
    left_out = show(studio, settings={"data.on_long": "skip"})[1]["problems"]
    assert {"place": "faq.jsonl:4", "text": "left out: too long (data.on_long)", "example": None} in left_out


def test_examples_are_shown_from_any_place_and_long_ones_in_part(studio):
    _, shown, _ = show(studio, first=2, count=5, tokens=10)
    (example,) = shown["examples"]
    (text,) = example["texts"]
    assert (example["index"], len(text["tokens"])) == (2, 10)
    assert text["more"] == 129 - 10  # the context, and the token that it predicts last
    assert example["dropped"] > 0
    assert f"cut by {example['dropped']}" in example["size"]


def test_hidden_tokens_are_shown_with_what_they_were_and_depend_on_the_seed_alone(studio):
    asked = {"model": "bert", "task": "masked", "settings": {"task.mask_rate": "0.5", "data.text": "{prompt}"}}
    status, shown, _ = show(studio, **asked, data="texts.jsonl")
    assert (status, shown["task"]["random"]) == (200, True)
    (text,) = shown["examples"][0]["texts"]
    hidden = [token for token in text["tokens"] if token[2] in ("masked", "replaced", "left")]
    assert hidden
    meant = "".join(token[3] if len(token) == 4 else token[1] for token in text["tokens"])
    assert "".join(meant.replace("##", "").split()) == "[CLS]Theskyisblue[SEP]"
    assert show(studio, **asked, data="texts.jsonl")[1]["examples"] == shown["examples"]
    others = [show(studio, **asked, data="texts.jsonl", seed=seed)[1]["examples"] for seed in range(1, 6)]
    assert any(other != shown["examples"] for other in others)
    assert "encoder" in shown["refusal"]  # the folder's model is a decoder


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"data": "../outside/secret.jsonl"}, "is not in the folders"),
        ({"data": "/etc/passwd"}, "is not in the folders"),
        ({"data": "folder"}, "is not in the folders"),
        ({"model": "tiny"}, "is not in the folders"),
        ({"model": "../tiny"}, "is not in the folders"),
        ({"data": "recipe.yaml"}, "is a recipe"),
        ({"data": "nothing.jsonl"}, "there is no such file"),
        ({"data": " "}, "is not named"),
        ({"settings": {"data.additional": "../outside/secret.jsonl"}}, "is not in the folders"),
        ({"settings": {"data.limt": "3"}}, "did you mean data.limit?"),
        ({"settings": {"out": "x"}}, "is no setting of this form"),
        ({"settings": {"data.limit": "many"}}, "limit"),
        ({"count": 1000}, "count"),
    ],
)
def test_what_cannot_be_shown_is_said(studio, values, fault):
    status, answer, _ = show(studio, **values)
    assert status == 400
    assert fault in answer["error"]["message"]
    assert "a secret" not in json.dumps(answer)


def test_a_file_is_taken_in_whole_and_never_replaces_another(studio, home):
    content = (home / "faq.jsonl").read_bytes()
    assert upload(studio, "my%20data.jsonl", content) == (200, {"name": "data/my-data.jsonl", "bytes": len(content)})
    assert upload(studio, "my%20data.jsonl", b'{"text": "other"}\n')[1]["name"] == "data/my-data-2.jsonl"
    assert (home / "inside" / "data" / "my-data.jsonl").read_bytes() == content
    names = [offered["name"] for offered in studio.ask("GET", "/studio/api/data/choices")[1]["data"]]
    assert {"faq.jsonl", "data/my-data.jsonl", "python-help"} <= set(names)
    assert show(studio, data="data/my-data.jsonl")[1]["counts"]["rows"] == 3


@pytest.mark.parametrize("name", ["", "x", ".jsonl", "a.exe", "..%2F..%2Fa.yaml", "a.jsonl.bak", "%00.csv", "...csv"])
def test_names_that_are_no_data_file_s_are_refused(studio, home, name):
    before = files(home)
    status, answer = upload(studio, name, b"text\n")
    assert (status, "format" in answer["error"]["message"]) == (400, True)
    assert files(home) == before


def test_a_name_with_folders_lands_in_the_studio_s_own(studio, home):
    status, answer = upload(studio, "..%2F..%2Foutside%2Fsecret.jsonl", b'{"text": "new"}\n')
    assert (status, answer["name"]) == (200, "data/secret.jsonl")
    assert "a secret" in (home / "outside" / "secret.jsonl").read_text()


def test_too_large_a_file_leaves_nothing_behind(studio, home, monkeypatch):
    monkeypatch.setattr(data, "UPLOAD_LIMIT", 1000)
    before = files(home)
    assert upload(studio, "large.txt", b"x" * 1001)[0] == 413
    chunks = iter([b"x" * 400, b"x" * 400, b"x" * 400])  # without a declared length
    assert upload(studio, "large.txt", chunks)[0] == 413
    assert files(home) == before


def test_a_connection_that_is_cut_leaves_nothing_behind(studio, home):
    before = files(home)
    with socket.create_connection(("127.0.0.1", studio.port)) as connection:
        head = (
            f"POST /studio/api/data/upload?name=half.txt HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
            f"Cookie: {cookie_name(studio.port)}={TOKEN}\r\n\r\n"
        )
        connection.sendall(head.encode() + b"x" * 50_000)
        end = time.monotonic() + 30
        while files(home) == before and time.monotonic() < end:  # it is being written under another name
            time.sleep(0.01)
        assert not any(name == "half.txt" for name in files(home))
    end = time.monotonic() + 30
    while files(home) != before:
        assert time.monotonic() < end, files(home)
        time.sleep(0.01)
