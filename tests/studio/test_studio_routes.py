"""What a studio answers: the page's files, the models that are here, runs and their cards."""

from __future__ import annotations

import json
import re
import shutil
from importlib import resources
from urllib.parse import quote

import pytest

pytest.importorskip("uvicorn")

from studio_server import SCRIPT, make_runs, open_model, running, save_talker
from tiny_comparisons import comparison

from lmworks.comparisons.comparison_state import STATE
from lmworks.studio.access import FRAME_POLICY
from lmworks.studio.runs import differences, thinned

MESSAGES = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(name="home", scope="module")
def _home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    save_talker(home / "models" / "talker")
    make_runs(home)
    shutil.copytree(home / "runs" / "unigram", home / "runs" / "damaged")
    (home / "runs" / "damaged" / "journal.jsonl").write_text('{"event": "start"}\n[]\n{"event": "finish"}\n')
    (home / "broken").mkdir()
    (home / "broken" / "model.gguf").write_bytes(b"no GGUF")
    comparison(["majority", "lora"]).write(home / "compared")
    return home


@pytest.fixture(name="studio", scope="module")
def _studio(home):
    with running([home], {"open": open_model(str(home / "models" / "talker"))}) as studio:
        yield studio


def test_each_file_of_the_page_is_there_and_nothing_comes_from_elsewhere(studio):
    page = resources.files("lmworks.studio").joinpath("page")
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
    for file in page.iterdir():
        status, content, headers = studio.ask("GET", f"/studio/page/{file.name}")
        assert (status, content) == (200, file.read_text(encoding="utf-8"))
        assert headers["content-type"].startswith(kinds[file.name.rpartition(".")[2]])
        names = re.findall(r'(?:from|import) "\./([^"]+)"', content) + re.findall(r'"/studio/page/([^"]+)"', content)
        assert all(page.joinpath(name).is_file() for name in names)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", content)
        assert not re.search(r"""(?:src|href|url\(|import|from)[\s=("']+https?:""", content)


@pytest.mark.parametrize("name", ["nothing.js", "..%2fapp.py", "%2e%2e/app.py", "", "page"])
def test_no_other_file_is_given(studio, name):
    assert studio.ask("GET", f"/studio/page/{name}")[0] == 404


def test_the_address_alone_leads_to_the_page(studio):
    status, _, headers = studio.ask("GET", "/")
    assert (status, headers["location"]) == (307, "/studio")


def models(studio):
    return {model["name"]: model for model in studio.ask("GET", "/studio/api/models")[1]["models"]}


def test_the_models_that_are_here_are_listed(studio):
    listed = models(studio)
    assert (listed["open"]["state"], listed["open"]["writes"], listed["open"]["reads"]) == ("open", True, "chat")
    assert listed["open"]["context"] == 4096
    assert (listed["models/talker"]["kind"], listed["models/talker"]["state"]) == ("folder", "closed")
    assert (listed["broken/model.gguf"]["kind"], listed["runs/ngram-5"]["kind"]) == ("GGUF file", "run")


def test_a_model_is_opened_asked_and_closed(studio):
    name = "models/talker"
    body = {"model": name, "messages": MESSAGES, "max_tokens": 3, "temperature": 0}
    assert studio.ask("POST", "/v1/chat/completions", body)[0] == 404
    for _ in range(2):
        status, model, _ = studio.ask("POST", "/studio/api/models/open", {"name": name})
        assert (status, model["state"], model["reads"]) == (200, "open", "chat")
    assert models(studio)[name]["state"] == "open"
    status, answer, _ = studio.ask("POST", "/v1/chat/completions", body)
    assert status == 200
    same = studio.ask("POST", "/v1/chat/completions", {**body, "model": "open"})[1]
    assert answer["choices"] == same["choices"]
    assert f'model="{name}"' in studio.ask("GET", "/metrics")[1]
    assert studio.ask("POST", "/studio/api/models/close", {"name": name})[0] == 200
    assert studio.ask("POST", "/studio/api/models/close", {"name": name})[0] == 404
    assert studio.ask("POST", "/v1/chat/completions", body)[0] == 404
    assert models(studio)[name]["state"] == "closed"
    assert studio.ask("GET", "/metrics")[0] == 200


def test_a_model_that_continues_texts_is_told_apart(studio):
    status, model, _ = studio.ask("POST", "/studio/api/models/open", {"name": "runs/ngram-5"})
    assert (status, model["reads"], model["context"]) == (200, "text", None)
    body = {"model": "runs/ngram-5", "prompt": "page 1: ", "max_tokens": len(SCRIPT), "temperature": 0}
    assert studio.ask("POST", "/v1/completions", body)[1]["choices"][0]["text"].startswith("<script>")


@pytest.mark.parametrize("name", ["nowhere", "../home/models/talker", "/etc", "\ud800", "broken"])
def test_a_model_that_is_not_listed_is_not_opened(studio, name):
    status, body, _ = studio.ask("POST", "/studio/api/models/open", {"name": name})
    assert (status, body["error"]["code"]) == (404, "model_not_found")


def test_what_cannot_be_opened_is_said_and_may_be_tried_again(studio):
    for _ in range(2):
        status, body, _ = studio.ask("POST", "/studio/api/models/open", {"name": "broken/model.gguf"})
        assert status == 400
        assert "model.gguf" in body["error"]["message"]
    assert models(studio)["broken/model.gguf"]["state"] == "closed"


def test_runs_and_comparisons_are_listed_and_faults_told(studio):
    for _ in range(2):  # the second time from what was kept
        status, listed, _ = studio.ask("GET", "/studio/api/runs")
        assert status == 200
        assert {run["name"] for run in listed["runs"]} == {"runs/unigram", "runs/ngram-5"}
        assert {run["state"] for run in listed["runs"]} == {"finished"}
        assert listed["runs"][0]["name"] == "runs/ngram-5"  # the newest
        assert listed["groups"] == [{"name": "compared", "kind": "comparison", "title": "minilm-l6 on movie-reviews"}]
        (fault,) = listed["faults"]
        assert fault.startswith("runs/damaged: ")


def test_a_run_that_goes_on_is_read_again(home):
    with running([home]) as studio:
        before = studio.ask("GET", "/studio/api/runs")[1]["runs"]
        shutil.copytree(home / "runs" / "unigram", home / "runs" / "again")
        try:
            journal = home / "runs" / "again" / "journal.jsonl"
            assert len(studio.ask("GET", "/studio/api/runs")[1]["runs"]) == len(before) + 1
            events = [line for line in journal.read_text().splitlines() if json.loads(line)["event"] != "finish"]
            journal.write_text("\n".join(events) + "\n")
            runs = {run["name"]: run["state"] for run in studio.ask("GET", "/studio/api/runs")[1]["runs"]}
            assert runs["runs/again"] == "interrupted"
        finally:
            shutil.rmtree(home / "runs" / "again")


def test_cards_stand_beside_each_other_with_what_differs(studio):
    status, body, _ = studio.ask("GET", "/studio/api/runs/cards?name=runs/unigram&name=runs/ngram-5")
    assert status == 200
    assert [card["name"] for card in body["cards"]] == ["runs/unigram", "runs/ngram-5"]
    first, second = ({m["key"]: m["after"]["value"] for m in card["measures"]} for card in body["cards"])
    assert second["held_out_bits"] < first["held_out_bits"]
    assert all(dict(card["facts"])["method"] for card in body["cards"])
    settings = {entry["setting"]: entry["values"] for entry in body["differences"]}
    assert "data.source" not in settings
    assert settings
    assert all(len(values) == 2 and values[0] != values[1] for values in settings.values())


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("name=nowhere", 400),
        ("name=../runs", 400),
        ("name=/etc", 400),
        ("name=runs/damaged", 400),
        ("&".join(["name=runs/unigram"] * 7), 400),
        ("name=runs/unigram", 200),
    ],
)
def test_only_runs_have_cards(studio, query, status):
    answered, body, _ = studio.ask("GET", f"/studio/api/runs/cards?{query}")
    assert answered == status
    if status == 400:
        assert body["error"]["message"]


@pytest.mark.parametrize(("name", "words"), [("runs/ngram-5", "Report card"), ("compared", "Comparison")])
def test_pages_come_with_a_policy_of_their_own(studio, name, words):
    status, page, headers = studio.ask("GET", f"/studio/api/runs/page?name={quote(name)}")
    assert status == 200
    assert words in page
    assert SCRIPT not in page
    assert headers["content-security-policy"] == FRAME_POLICY


@pytest.mark.parametrize("name", ["", "models/talker", "nowhere", "../home", "/etc/passwd", "%00", "pages.txt", STATE])
def test_nothing_else_has_a_page(studio, name):
    status, body, _ = studio.ask("GET", f"/studio/api/runs/page?name={name}")
    assert status == 400
    assert body["error"]["message"]


def test_differences_of_recipes():
    recipes = [{"a": 1, "b.c": [1, 2], "d": "same"}, {"a": 1.0, "b.c": [1], "d": "same", "e": None}]
    assert differences(recipes) == [
        {"setting": "a", "values": ["1", "1.0"]},
        {"setting": "b.c", "values": ["[1, 2]", "[1]"]},
        {"setting": "e", "values": [None, "null"]},
    ]
    assert differences(recipes[:1]) == []


@pytest.mark.parametrize("count", [0, 1, 399, 400, 401, 1000, 1601])
def test_long_curves_keep_their_last_point_and_order(count):
    points = [[float(step), 0.0] for step in range(count)]
    kept = thinned(points)
    assert len(kept) <= 400
    assert kept == sorted(kept)
    assert kept[-1:] == points[-1:]
    assert len(kept) > 0.4 * min(count, 400) or not count
