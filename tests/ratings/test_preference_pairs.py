"""Ratings become preference pairs that TRL's and lmworks' readers take: what was preferred is chosen."""

from __future__ import annotations

import json

import pytest
from rated_tests import make_test

from lmworks.base.errors import InputError
from lmworks.ratings.answers import Answer
from lmworks.ratings.blind_test import BlindTest
from lmworks.ratings.blind_test_settings import BlindTestSettings
from lmworks.ratings.preference_pairs import preference_pairs, write_preference_pairs


def choose(test: BlindTest, rater: str, prompt: int, *models: str) -> None:
    order = test.order(prompt, rater)
    test.rate(rater, prompt, [order.index(model) for model in models] or None)


def test_what_was_preferred_is_chosen(tmp_path):
    test = make_test(tmp_path / "test")
    choose(test, "anna", 4, "tuned")
    choose(test, "anna", 1, "base")
    choose(test, "anna", 0, "base", "tuned")
    choose(test, "anna", 2)
    assert preference_pairs(test) == [
        {"prompt": "Question 1?", "chosen": "base answers 1", "rejected": "tuned answers 1"},
        {"prompt": "Question 4?", "chosen": "tuned answers 4", "rejected": "base answers 4"},
    ]


def test_the_best_of_three_is_preferred_to_the_others_and_nothing_is_said_of_those(tmp_path):
    test = make_test(tmp_path / "test", ["a", "b", "c"])
    choose(test, "anna", 0, "b")
    choose(test, "anna", 1, "a", "c")
    pairs = {(row["chosen"], row["rejected"]) for row in preference_pairs(test)}
    assert pairs == {
        ("b answers 0", "a answers 0"),
        ("b answers 0", "c answers 0"),
        ("a answers 1", "b answers 1"),
        ("c answers 1", "b answers 1"),
    }


def test_most_raters_decide(tmp_path):
    test = make_test(tmp_path / "test")
    for rater, first, second in (("anna", "base", "base"), ("ben", "tuned", "tuned"), ("carl", "tuned", "base")):
        choose(test, rater, 0, first)
        if rater != "carl":
            choose(test, rater, 1, second)
    assert [row["chosen"] for row in preference_pairs(test)] == ["tuned answers 0"]


def test_scores_are_a_ranking(tmp_path):
    test = make_test(tmp_path / "test", ["a", "b", "c"], by="scores", criteria=["x", "y"])
    scores = {"a": {"x": 5, "y": 4}, "b": {"x": 1, "y": 1}, "c": {"x": 4, "y": 5}}
    test.rate("anna", 0, scores=[scores[model] for model in test.order(0, "anna")])
    pairs = {(row["chosen"], row["rejected"]) for row in preference_pairs(test)}
    assert pairs == {("a answers 0", "b answers 0"), ("c answers 0", "b answers 0")}


def conversation(tmp_path) -> BlindTest:
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Why?"},
    ]
    test = BlindTest.create(tmp_path / "test", BlindTestSettings(models=["base", "tuned"]), [turns])
    test.answers.add(0, "base", Answer("Because.", "stop"))
    test.answers.add(0, "tuned", Answer("So.", "stop"))
    choose(test, "anna", 0, "tuned")
    return test


def test_conversations_stay_conversations(tmp_path):
    (row,) = preference_pairs(conversation(tmp_path))
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["chosen"] == [{"role": "assistant", "content": "So."}]
    assert row["rejected"] == [{"role": "assistant", "content": "Because."}]


@pytest.mark.parametrize("make", [conversation, None])
def test_files_are_preference_data_as_trl_and_datasets_read_it(tmp_path, make):
    datasets = pytest.importorskip("datasets")
    if make is None:
        test = make_test(tmp_path / "test")
        choose(test, "anna", 1, "base")
    else:
        test = make(tmp_path)
    path = tmp_path / "pairs.jsonl"
    assert write_preference_pairs(test, path) == 1
    assert [json.loads(line) for line in path.read_text().splitlines()] == preference_pairs(test)
    read = datasets.load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    assert set(read.column_names) == {"prompt", "chosen", "rejected"}
    assert read[0]["chosen"] == preference_pairs(test)[0]["chosen"]


def test_a_name_without_a_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="what format"):
        write_preference_pairs(make_test(tmp_path / "test"), tmp_path / "pairs")
