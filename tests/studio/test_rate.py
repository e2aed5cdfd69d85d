"""The requests of the tab Rate, over a socket: answers made once by the engine, ratings without names, results."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from rating_studio import FIRST, PROMPTS, SECOND, Refused, Studio, open_models, running_studio

from lmworks.ratings.blind_test import ANSWERS, RATINGS, BlindTest


@pytest.fixture(name="models", scope="module")
def _models(tmp_path_factory) -> dict[str, Any]:
    return open_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(name="studio")
def _studio(models, tmp_path):
    with running_studio(models, tmp_path) as studio:
        yield studio


def next_of(studio: Studio, test: str, rater: str) -> dict[str, Any]:
    return studio.ask("next", {"test": test, "rater": rater})


def test_answers_are_those_of_the_models_and_are_made_once(studio, models, tmp_path):
    test = studio.make()
    assert test == "ratings/first"
    assert studio.answered(test)["progress"]["missing"] == 0
    stored = BlindTest(tmp_path / test).answers.all()
    for prompt, question in enumerate(PROMPTS):
        for name in (FIRST, SECOND):
            expected = models[name].chat([{"role": "user", "content": question}], max_tokens=8, temperature=0)
            assert stored[prompt, name].text == expected.strip()
    before = (tmp_path / test / ANSWERS).read_bytes()
    studio.ask("answer", {"test": test})
    studio.answered(test)
    assert (tmp_path / test / ANSWERS).read_bytes() == before
    assert len(before.splitlines()) == 2 * len(PROMPTS)


def test_a_rater_sees_texts_without_names_and_rates_until_none_is_left(studio, tmp_path):
    test = studio.make()
    studio.answered(test)
    blind = BlindTest(tmp_path / test)
    item, seen = next_of(studio, test, "anna"), []
    while item["prompt"] is not None:
        assert FIRST not in json.dumps(item)
        assert SECOND not in json.dumps(item)
        order = blind.order(item["prompt"], "anna")
        texts = [blind.answers.all()[item["prompt"], model].text for model in order]
        assert [answer["text"] for answer in item["answers"]] == texts
        assert item["messages"] == [{"role": "user", "content": PROMPTS[item["prompt"]]}]
        seen.append(item["prompt"])
        values = {"best": [order.index(FIRST)]} if len(seen) > 1 else {}
        item = studio.ask("rating", {"test": test, "rater": "anna", "prompt": item["prompt"], **values})
    assert sorted(seen) == list(range(len(PROMPTS)))
    assert item["progress"]["skipped"] == 1
    result = studio.ask("outcome", {"test": test})
    (pair,) = result["pairs"]
    assert (pair["first"], pair["wins"], pair["losses"]) == (FIRST, len(PROMPTS) - 1, 0)
    assert pair["rate"] == 1
    assert pair["high"] == 1
    assert pair["p_value"] == pytest.approx(2 / 2 ** (len(PROMPTS) - 1))
    assert result["strengths"] is None
    assert any("no strengths" in warning for warning in result["warnings"])
    assert studio.ask("pairs", {"test": test}) == {"file": f"{test}/pairs.jsonl", "pairs": len(PROMPTS) - 1}
    rows = [json.loads(line) for line in (tmp_path / test / "pairs.jsonl").read_text().splitlines()]
    assert {tuple(row) for row in rows} == {("prompt", "chosen", "rejected")}


def test_undo_shows_the_prompt_again(studio):
    test = studio.make()
    studio.answered(test)
    first = next_of(studio, test, "anna")
    second = studio.ask("rating", {"test": test, "rater": "anna", "prompt": first["prompt"], "best": [1]})
    assert second["prompt"] != first["prompt"]
    assert studio.ask("undo", {"test": test, "rater": "anna"}) == first
    assert studio.ask("undo", {"test": test, "rater": "anna"}) == first  # there was nothing to take back


def test_a_second_rater_sees_the_same_answers(studio):
    test = studio.make()
    studio.answered(test)
    texts: dict[str, set] = {}
    for rater in ("anna", "ben"):
        item = next_of(studio, test, rater)
        while item["prompt"] is not None:
            texts.setdefault(rater, set()).add((item["prompt"], *sorted(answer["text"] for answer in item["answers"])))
            item = studio.ask("rating", {"test": test, "rater": rater, "prompt": item["prompt"], "best": [0]})
    assert texts["anna"] == texts["ben"]
    result = studio.ask("outcome", {"test": test})
    assert result["raters"] == {"anna": len(PROMPTS), "ben": len(PROMPTS)}
    assert result["agreement"]["best answer"]["units"] == len(PROMPTS)


def test_scores(studio):
    test = studio.make(settings={"by": "scores", "criteria": ["quality", "coherence"]})
    studio.answered(test)
    for _ in range(4):
        prompt = next_of(studio, test, "anna")["prompt"]
        scores = [{"quality": 4, "coherence": 5}, {"quality": 2, "coherence": 1 + prompt % 3}]
        studio.ask("rating", {"test": test, "rater": "anna", "prompt": prompt, "scores": scores, "seconds": 3.5})
    result = studio.ask("outcome", {"test": test})
    assert set(result["scores"]) == {"quality", "coherence", "mean of all criteria"}
    assert {line["name"] for line in result["scores"]["quality"]} == {FIRST, SECOND}


def test_prompts_come_from_a_file_of_the_folder(studio, tmp_path):
    (tmp_path / "asked.jsonl").write_text('{"prompt": "Who?"}\n{"prompt": "Why?"}\n{"prompt": "Who?"}\n')
    assert "asked.jsonl" in studio.ask("tests")["files"]
    test = studio.make(file="asked.jsonl", prompts=None)
    state = studio.answered(test)
    assert state["progress"]["prompts"] == 2
    assert state["notes"] == ["1 prompt equal to an earlier one left out"]
    assert [entry["name"] for entry in studio.ask("tests")["tests"]] == [test]


def test_prompts_that_are_too_long_are_left_out_and_said(studio):
    test = studio.make(prompts=["word " * 600, "Who?"])
    state = studio.answered(test)
    progress = state["progress"]
    assert (progress["missing"], progress["unanswered"], progress["left"]) == (0, 1, 1)
    assert all("cannot answer 1 prompt: the prompt has" in note for note in state["notes"])
    assert len(state["notes"]) == 2
    item = next_of(studio, test, "anna")
    assert item["messages"][0]["content"] == "Who?"
    studio.ask("rating", {"test": test, "rater": "anna", "prompt": item["prompt"], "best": [0]})
    warnings = studio.ask("outcome", {"test": test})["warnings"]
    assert any("1 prompt left out: fewer than two models can answer" in warning for warning in warnings)


def test_a_model_that_is_not_here_is_said_and_the_test_stays(studio):
    test = studio.make(settings={"models": [FIRST, "nobody"]})
    state = studio.answered(test)
    assert "nobody" in state["failure"]
    assert next_of(studio, test, "anna")["prompt"] is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../x"}, "name"),
        ({"name": ".x"}, "name"),
        ({"prompts": []}, "prompts"),
        ({"file": "none.txt"}, "either is needed"),
        ({"file": "../none.txt", "prompts": None}, "not in the folders"),
        ({"file": "none.txt", "prompts": None}, "no such file"),
        ({"settings": {"models": [FIRST]}}, "2 to 9 different models"),
        ({"settings": {"by": "luck"}}, "by"),
        ({"settings": {"beauty": 1}}, "beauty"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_no_test_is_refused_by_field(studio, tmp_path, values, message):
    with pytest.raises(Refused, match=message) as refused:
        studio.make(**values)
    assert refused.value.status == 400
    assert not list(tmp_path.rglob("test.json"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"best": [2]}, "best"),
        ({"best": []}, "best"),
        ({"scores": [{"quality": 1}]}, "rated by choice"),
        ({"prompt": 99}, "prompt"),
        ({"prompt": True}, "prompt"),
        ({"rater": ""}, "rater"),
        ({"test": "ratings/other"}, "no blind test"),
        ({"test": "../first"}, "not in the folders"),
    ],
)
def test_what_is_no_rating_is_refused_and_not_kept(studio, tmp_path, values, message):
    test = studio.make()
    studio.answered(test)
    body = {"test": test, "rater": "anna", "prompt": 0, "best": [0], **values}
    if "scores" in values:
        del body["best"]
    with pytest.raises(Refused, match=message) as refused:
        studio.ask("rating", body)
    assert refused.value.status == 400
    assert (tmp_path / test / RATINGS).read_bytes() == b""


def test_the_name_of_a_test_is_taken_once(studio):
    studio.make()
    with pytest.raises(Refused, match="already"):
        studio.make()


def test_a_damaged_test_is_named_and_the_others_are_listed(studio, tmp_path):
    studio.make()
    (tmp_path / "ratings" / "bad").mkdir()
    (tmp_path / "ratings" / "bad" / "test.json").write_text("{")
    listed = studio.ask("tests")
    assert [test["name"] for test in listed["tests"]] == ["ratings/first"]
    assert listed["faults"][0].startswith("ratings/bad")


def test_a_model_without_a_chat_template_continues_the_prompt(models, tmp_path):
    base = open_models(tmp_path / "models")[FIRST]
    base.tokenizer.chat_template = None
    with running_studio({FIRST: base, SECOND: models[SECOND]}, tmp_path) as studio:
        test = studio.make(prompts=["Who?"])
        assert studio.answered(test)["progress"]["missing"] == 0
    answer = BlindTest(tmp_path / test).answers.all()[0, FIRST]
    assert answer.text == base.generate("Who?", max_tokens=8, temperature=0).strip()
