"""Questions without an answer, support and agreement, beside the same numbers by hand."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from tiny_kinds import save_classifier
from tiny_model import save_tiny

import lmworks
from lmworks.audits import hallucination
from lmworks.audits.part import Given
from lmworks.audits.settings import AuditSettings
from lmworks.audits.subject import open_subject
from lmworks.base.errors import InputError
from lmworks.evaluate.question_answering import f1, normalize, scores

CONTEXTS = {
    "Anna lives in Rome.": ("Where does Anna live?", "Rome"),
    "Boris eats figs.": ("What does Boris eat?", "figs"),
}


def squad(path, with_impossible: bool) -> str:
    """A file in SQuAD's form."""
    paragraphs = []
    for context, (question, answer) in CONTEXTS.items():
        asked = [{"id": question, "question": question, "answers": [
            {"text": answer, "answer_start": context.index(answer)}]}]  # fmt: skip
        if with_impossible:
            asked.append({"id": "no", "question": "Who is the king?", "answers": [], "is_impossible": True})
        paragraphs.append({"context": context, "qas": asked})
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module", name="writer")
def _writer(tmp_path_factory):
    """A run that learned by heart an answer to each of the questions, wrong ones among them."""
    folder = tmp_path_factory.mktemp("model")
    answers = {("Where does Anna live?", 0): "in Rome", ("What does Boris eat?", 1): "blue figs"}
    answers |= {("Who is the king?", 0): "Anna", ("Who is the king?", 1): "unanswerable"}
    answers |= {("Where does Anna live?", 1): "Paris", ("What does Boris eat?", 0): "unanswerable"}
    rows = [
        {"prompt": hallucination._Question(question, list(CONTEXTS)[place], ()).messages()[0]["content"],
         "completion": answer}
        for (question, place), answer in answers.items()
    ]  # fmt: skip
    return lmworks.tune(
        str(save_tiny(folder / "tiny", context=1024)),
        {"source": rows, "held_out": 0},
        method="full",
        out=folder / "run",
        train={"steps": 120, "learning_rate": 1e-2, "batch_size": 6, "threads": 1, "precision": "float32"},
        evaluate={"task_rows": 0, "general_bytes": 0, "samples": 0},
    ).folder


def figures_of(part) -> dict:
    return {figure.name: figure for figure in part.figures}


@pytest.mark.parametrize("with_impossible", [True, False])
def test_the_figures_are_those_of_the_answers(with_impossible, writer, tmp_path):
    settings = AuditSettings(questions=squad(tmp_path / "q.json", with_impossible), max_tokens=8, samples=3)
    part = hallucination.measure(open_subject(writer, [].append), Given(settings))
    model, measured = lmworks.load(writer).prepare("float32"), figures_of(part)

    def ask(question: str, context: str, **sampling) -> str:
        content = f"{hallucination.INSTRUCTION}\n\nText: {context}\n\nQuestion: {question}\nAnswer:"
        return model.chat([{"role": "user", "content": content}], max_tokens=8, **sampling).strip()

    answers = [(ask(question, context), context, question, gold) for context, (question, gold) in CONTEXTS.items()]
    assert measured["f1"].value > 0.3  # it was learned by heart
    assert measured["f1"].value == pytest.approx(np.mean([scores(text, [gold])[1] for text, _, _, gold in answers]))
    words = [(normalize(text).split(), normalize(context).split()) for text, context, _, _ in answers]
    inside = sum(word in source for said, source in words for word in said)
    assert measured["support"].value == pytest.approx(inside / sum(len(said) for said, _ in words))
    if with_impossible:
        others = [ask("Who is the king?", context) for context in CONTEXTS]
    else:
        first, second = answers
        others = [ask(first[2], second[1]), ask(second[2], first[1])]
    expected = np.mean([not hallucination._refuses(text) for text in others])
    assert measured["answered_unanswerable"].value == expected
    assert ("without answer" in measured["answered_unanswerable"].signature) == with_impossible
    drawn = [
        [ask(question, context, temperature=1.0, seed=seed) for seed in range(3)] for _, context, question, _ in answers
    ]
    agreement = [np.mean([f1(*pair) for pair in combinations(listed, 2)]) for listed in drawn]
    assert measured["agreement"].value == pytest.approx(np.mean(agreement))


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("Unanswerable.", True),
        ("The text does not mention it.", True),
        ("I cannot answer that.", True),
        ("", True),
        ("Rome", False),
        ("It is known as Rome.", False),
    ],
)
def test_refusals_are_known_by_their_words(text, refuses):
    assert hallucination._refuses(text) is refuses


def test_a_context_that_answers_by_chance_is_no_unanswerable_question():
    from lmworks.text.rows import Row

    rows = [
        Row({"question": "Where is Anna?", "context": "Anna is in Rome.", "answers": {"text": ["Rome"]}}),
        Row({"question": "Where is Boris?", "context": "Boris is in Rome, too.", "answers": {"text": ["Rome"]}}),
    ]
    answerable, unanswerable, _ = hallucination._questions(rows, Given(AuditSettings()))
    assert len(answerable) == 2
    assert unanswerable == []


def test_entailment_is_asked_of_a_model_of_pairs(writer, tmp_path):
    pairs = save_classifier(tmp_path / "nli", ["contradiction", "entailment"])
    settings = AuditSettings(questions=squad(tmp_path / "q.json", False), max_tokens=4, entailment=str(pairs))
    measured = figures_of(hallucination.measure(open_subject(writer, [].append), Given(settings)))
    assert 0 < measured["entailment"].value < 1
    with pytest.raises(InputError, match="no label entailment"):
        hallucination.entailments(str(save_classifier(tmp_path / "other", ["a", "b"])), [("a", "b")])


def test_without_questions_it_says_what_is_needed(writer):
    part = hallucination.measure(open_subject(writer, [].append), Given(AuditSettings()))
    assert part.figures == []
    assert "--questions FILE" in part.missing[0]
