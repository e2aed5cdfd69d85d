"""A blind test on the disk: who sees what in which order, what is kept, what is refused, and what a kill leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from rated_tests import make_test, rate_all

from lmworks.base.errors import InputError
from lmworks.ratings.answers import Answer
from lmworks.ratings.blind_test import RATINGS, BlindTest
from lmworks.ratings.blind_test_settings import BlindTestSettings

RATER = """
import sys
from lmworks.ratings.blind_test import BlindTest
test = BlindTest(sys.argv[1])
while (prompt := test.next_prompt("anna")) is not None:
    test.rate("anna", prompt, [prompt % 2])
    print(prompt, flush=True)
"""


@pytest.fixture(name="test")
def _test(tmp_path):
    return make_test(tmp_path / "test")


def lines(test: BlindTest) -> list[dict]:
    return [json.loads(line) for line in (test.path / RATINGS).read_text().splitlines()]


def test_orders_are_random_the_same_each_time_and_kept_with_the_rating(tmp_path):
    test = make_test(tmp_path / "test", ["a", "b", "c"], prompts=300)
    orders = [tuple(test.order(prompt, "anna")) for prompt in range(300)]
    counts = Counter(orders)
    assert len(counts) == 6
    assert min(counts.values()) > 25  # 50 are expected of each
    again = BlindTest(test.path)
    assert [tuple(again.order(prompt, "anna")) for prompt in range(300)] == orders
    assert [tuple(test.order(prompt, "ben")) for prompt in range(300)] != orders
    assert test.rate("anna", 7, [1]).order == list(orders[7])
    assert lines(test)[0]["order"] == list(orders[7])
    assert lines(test)[0]["best"] == [orders[7][1]]


def test_another_seed_gives_other_orders(tmp_path):
    tests = [make_test(tmp_path / str(seed), prompts=40, seed=seed) for seed in (0, 1)]
    assert len({str([test.order(prompt, "anna") for prompt in range(40)]) for test in tests}) == 2


def test_raters_see_all_prompts_each_in_an_order_of_their_own(tmp_path):
    test = make_test(tmp_path / "test", prompts=30)
    assert rate_all(test, "anna", lambda prompt, order: order[:1]) == 30
    assert rate_all(test, "ben", lambda prompt, order: order[:1]) == 30
    seen = {rater: [line["prompt"] for line in lines(test) if line["rater"] == rater] for rater in ("anna", "ben")}
    assert sorted(seen["anna"]) == sorted(seen["ben"]) == list(range(30))
    assert seen["anna"] != seen["ben"]
    assert seen["anna"] != list(range(30))


def test_undo_takes_back_the_last_rating_and_the_prompt_comes_next_again(test):
    assert test.undo("anna") is None
    first = test.next_prompt("anna")
    test.rate("anna", first, [0])
    second = test.next_prompt("anna")
    test.rate("anna", second, [1])
    test.rate("ben", second, [0])
    assert test.undo("anna") == second
    assert test.next_prompt("anna") == second
    assert {(rating.rater, rating.prompt) for rating in test.ratings()} == {("anna", first), ("ben", second)}
    assert test.undo("anna") == first
    assert test.undo("anna") is None
    assert [rating.rater for rating in BlindTest(test.path).ratings()] == ["ben"]
    assert len(lines(test)) == 5  # nothing is erased


def test_a_prompt_that_is_rated_again_counts_once(test):
    test.rate("anna", 2, [0])
    test.rate("anna", 2, [1])
    (rating,) = test.ratings()
    assert rating.best == [test.order(2, "anna")[1]]


def test_ties_and_skips(test):
    tie, skip = test.rate("anna", 0, [0, 1]), test.rate("anna", 1)
    assert sorted(tie.best) == ["base", "tuned"]
    assert tie.preference("base", "tuned") == 0
    assert skip.is_skipped
    assert not tie.is_skipped
    progress = test.progress("anna")
    assert (progress.rated, progress.skipped, progress.left) == (1, 1, 4)
    assert test.progress("ben").left == 6
    assert test.progress().rated == 1


def test_identical_answers_are_not_shown_and_equal_ones_of_several_are_equally_good(tmp_path):
    models = ["a", "b", "c"]
    test = BlindTest.create(tmp_path / "t", BlindTestSettings(models=models), [[{"role": "user", "content": "?"}]] * 2)
    for model in models:
        test.answers.add(0, model, Answer("the same", "stop"))
        test.answers.add(1, model, Answer("other" if model == "c" else "equal", "stop"))
    assert test.next_prompt("anna") == 1
    order = test.order(1, "anna")
    rating = test.rate("anna", 1, [order.index("b")])
    assert sorted(rating.best) == ["a", "b"]
    assert rating.preference("a", "b") == 0
    assert rating.preference("a", "c") == 1
    assert test.progress().identical == 1
    with pytest.raises(InputError, match="no answers to compare"):
        test.rate("anna", 0, [0])


def test_prompts_wait_for_their_answers_and_do_without_models_that_cannot_answer(tmp_path):
    models = ["a", "b", "c"]
    test = BlindTest.create(tmp_path / "t", BlindTestSettings(models=models), [[{"role": "user", "content": "?"}]] * 2)
    assert test.answers.missing() == [(prompt, model) for prompt in range(2) for model in models]
    test.answers.add(0, "a", Answer("one", "stop"))
    test.answers.add(0, "b", Answer("two", "length"))
    assert test.next_prompt("anna") is None
    test.answers.add(0, "c", Answer(None, failure="the prompt is too long"))
    assert test.next_prompt("anna") == 0
    assert sorted(test.order(0, "anna")) == ["a", "b"]
    for model, text in zip(models, ["one", None, None], strict=True):
        test.answers.add(1, model, Answer(text, failure=None if text else "too long"))
    progress = test.progress()
    assert (progress.unanswered, progress.missing, progress.left) == (1, 0, 1)


def test_the_first_answer_stays(test):
    test.answers.add(0, "base", Answer("another", "stop"))
    assert test.answers.texts()[0]["base"] == BlindTest(test.path).answers.texts()[0]["base"] == "base answers 0"


def test_scores_are_kept_by_model_and_criterion(tmp_path):
    test = make_test(tmp_path / "test", by="scores", criteria=["clarity", "truth"])
    order = test.order(3, "anna")
    rating = test.rate("anna", 3, scores=[{"clarity": 5, "truth": 1}, {"clarity": 4, "truth": 4}], seconds=2.5)
    assert rating.scores == {order[0]: {"clarity": 5, "truth": 1}, order[1]: {"clarity": 4, "truth": 4}}
    assert rating.preferred == [order[1]]
    assert test.ratings() == [rating]


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"rater": " "}, "rater"),
        ({"rater": "x" * 65}, "rater"),
        ({"rater": "a\nb"}, "rater"),
        ({"prompt": 6}, "prompt"),
        ({"prompt": -1}, "prompt"),
        ({"best": []}, "best"),
        ({"best": [2]}, "best"),
        ({"best": [-1]}, "best"),
        ({"best": [True]}, "best"),
        ({"best": ["base"]}, "best"),
        ({"best": None, "scores": [{}, {}]}, "rating"),
    ],
)
def test_choices_that_are_none_are_refused_and_not_kept(test, values, place):
    with pytest.raises(InputError) as refused:
        test.rate(**{"rater": "anna", "prompt": 0, "best": [0], **values})
    assert refused.value.place == place
    assert refused.value.hint
    assert lines(test) == []


@pytest.mark.parametrize(
    "scores", [[{"a": 1}], [{"a": 1}, {"b": 1}], [{"a": 0}, {"a": 1}], [{"a": 6}, {"a": 1}], [{"a": 1.5}, {"a": 1}]]
)
def test_scores_that_are_none_are_refused_and_not_kept(tmp_path, scores):
    test = make_test(tmp_path / "test", by="scores", criteria=["a"])
    with pytest.raises(InputError) as refused:
        test.rate("anna", 0, scores=scores)
    assert refused.value.place.startswith("scores")
    assert lines(test) == []


@pytest.mark.parametrize("models", [["a"], ["a", "a"], list("abcdefghij")])
def test_two_to_nine_different_models_are_compared(models):
    with pytest.raises(ValueError, match="2 to 9 different models"):
        BlindTestSettings(models=models)


def test_a_folder_that_is_not_empty_is_not_taken(test):
    with pytest.raises(InputError, match="not empty"):
        make_test(test.path)
    with pytest.raises(InputError, match="no blind test"):
        BlindTest(test.path.parent)


@pytest.mark.parametrize(
    "line",
    [
        {"rater": "anna", "prompt": 0, "order": ["base", "other"], "best": ["base"]},
        {"rater": "anna", "prompt": 6, "order": ["base", "tuned"], "best": ["base"]},
        {"rater": "anna", "prompt": 0, "order": ["base"], "best": ["tuned"]},
        {"rater": "anna", "prompt": 0, "order": ["base", "tuned"], "scores": {"base": {"quality": 1}}},
        {"rater": "anna", "prompt": 0, "order": [{}], "best": []},
        {"rater": 1, "prompt": 0, "order": ["base", "tuned"], "best": ["base"]},
        {},
    ],
)
def test_a_line_that_is_no_rating_of_this_test_is_named(test, line):
    with (test.path / RATINGS).open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=r"ratings.jsonl:1"):
        test.ratings()


def test_an_unfinished_last_line_is_said_and_the_rest_is_there(test):
    test.rate("anna", 0, [0])
    with (test.path / RATINGS).open("a") as file:
        file.write('{"time": 1, "rater": "an')
    again = BlindTest(test.path)
    assert [rating.prompt for rating in again.ratings()] == [0]
    (note,) = again.file_notes()
    assert "ratings.jsonl" in note
    assert "not finished" in note
    again.rate("anna", 1, [0])
    assert [rating.prompt for rating in BlindTest(test.path).ratings()] == [0, 1]


def test_a_killed_process_loses_no_rating(tmp_path: Path) -> None:
    """Killed again and again while it rates: what it said is kept is kept, and it goes on where it was."""
    test = make_test(tmp_path / "test", prompts=200)
    said: list[int] = []
    for number in range(8):
        process = subprocess.Popen([sys.executable, "-c", RATER, str(test.path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        some = [process.stdout.readline() for _ in range(number % 3 + 2)]
        process.kill()
        said += [int(line) for line in [*some, *process.communicate()[0].splitlines()] if line.strip()]
    ratings = {rating.prompt: rating.best for rating in BlindTest(test.path).ratings()}
    assert len(said) == len(set(said)) >= 16
    assert all(ratings[prompt] == [test.order(prompt, "anna")[prompt % 2]] for prompt in said)
    rate_all(BlindTest(test.path), "anna", lambda prompt, order: order[:1])
    assert len(BlindTest(test.path).ratings()) == 200
