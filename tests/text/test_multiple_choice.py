"""Questions with several continuations: always the same ones of the documentation, and those of a file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lmworks.base.errors import InputError
from lmworks.text import stdlib
from lmworks.text.multiple_choice import CHOICES, ChoiceQuestion, documentation_questions, read_questions


def test_questions_of_the_documentation_are_always_the_same():
    assert documentation_questions() == documentation_questions()
    assert documentation_questions(10) == documentation_questions(10)
    assert len(documentation_questions(10)) == 10


def test_the_answer_is_what_stands_in_the_documentation_and_the_others_do_not():
    questions = documentation_questions()
    assert len(questions) >= 60
    topics = {topic: " ".join(text.split()) for topic, text in stdlib.topics().items()}
    for question in questions:
        topic = question.place.removeprefix("topic ").partition(":")[0]
        assert stdlib.is_general(topic)
        followed = [choice for choice in question.choices if question.prompt + choice in topics[topic]]
        assert followed == [question.choices[question.answer]]
        assert len(set(question.choices)) == CHOICES


def test_the_answer_is_given_away_neither_by_its_place_nor_by_its_length():
    questions = documentation_questions()
    places = Counter(question.answer for question in questions)
    assert len(places) == CHOICES
    assert max(places.values()) < 0.45 * len(questions)
    longest = [max(question.choices, key=len) == question.choices[question.answer] for question in questions]
    assert 0.1 < sum(longest) / len(longest) < 0.4


def save(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_has_questions_of_its_own(tmp_path):
    path = save(
        tmp_path / "own.jsonl",
        {"prompt": "The sky is", "choices": ["blue", " sour"], "answer": 0},
        {"prompt": "2 + 2 = ", "choices": ["5", "4", "3"], "answer": "4"},
    )
    first, second = read_questions(path)
    assert first == ChoiceQuestion("The sky is", (" blue", " sour"), 0, first.place)
    assert first.place.endswith("own.jsonl:1")
    assert (second.choices, second.answer) == (("5", "4", "3"), 1)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"choices": ["a", "b"], "answer": 0}, "no prompt"),
        ({"prompt": "a", "answer": 0}, "no choices"),
        ({"prompt": "a", "choices": ["a", "b"]}, "no answer"),
        ({"prompt": " ", "choices": ["a", "b"], "answer": 0}, "prompt of a question is no text"),
        ({"prompt": "a", "choices": ["a"], "answer": 0}, "two texts or more"),
        ({"prompt": "a", "choices": "ab", "answer": 0}, "two texts or more"),
        ({"prompt": "a", "choices": ["a", ""], "answer": 0}, "two texts or more"),
        ({"prompt": "a", "choices": ["a", "a"], "answer": 0}, "the same"),
        ({"prompt": "a", "choices": ["a", "b"], "answer": 2}, "none of 2 choices"),
        ({"prompt": "a", "choices": ["a", "b"], "answer": "c"}, "none of 2 choices"),
        ({"prompt": "a", "choices": ["a", "b"], "answer": True}, "none of 2 choices"),
    ],
)
def test_a_row_that_is_no_question_is_refused_with_its_line(row, fault, tmp_path):
    good = {"prompt": "a", "choices": ["a", "b"], "answer": 0}
    with pytest.raises(InputError, match=fault) as caught:
        read_questions(save(tmp_path / "own.jsonl", good, row))
    assert caught.value.place.endswith(":2")
    assert caught.value.hint


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_questions(tmp_path / "nowhere.jsonl")
