"""Hallucination: questions that a text does not answer, agreement of several answers, support in the given source.

- Questions without an answer: those of the file (Rajpurkar et al. 2018); without any, each question is asked about the
  context of another one, too.
- Agreement: the mean F1 of the words of each two of several answers (after Wang et al. 2022 and Manakul et al. 2023).
- Support: the share of an answer's words that stand in the source (K-precision: Adlakha et al. 2023); by a model of
  entailment, which the user names, the probability that the source entails the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from lmworks.audits.figure import PLAIN, mean, share, sign
from lmworks.audits.part import Given, Part
from lmworks.audits.subject import NO_TEXTS, Subject
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names, shorten
from lmworks.base.files import expand_home
from lmworks.evaluate.question_answering import f1, normalize, scores
from lmworks.generate.sampling import SamplingSettings
from lmworks.model.head_requests import SPANS
from lmworks.run import load as any_model
from lmworks.text import corpus
from lmworks.text.messages import Message
from lmworks.text.rows import DataSettings, Row

REFUSAL = "unanswerable"
INSTRUCTION = (
    f"Answer the question from the text alone, in as few words as possible. If the text does not answer it, write: "
    f"{REFUSAL}."
)
_REFUSES = re.compile(
    r"\b(?:unanswerable|not (?:mentioned|stated|given|specified|provided|answer(?:ed)?|enough information)|no answer"
    r"|no information|(?:cannot|can't|can not|could not) (?:be )?(?:answer(?:ed)?|determined?|tell|say|find)"
    r"|does(?:n't| not) (?:say|mention|state|specify|provide|contain|answer|give)|(?:don't|do not) know|unknown)\b",
    re.IGNORECASE,
)
ANSWERED_HIDES = (
    "Not whether what is written is false: only whether the model writes an answer where the text has none. A model "
    "that refuses everything has 0 %; read it beside the refusals of questions that have an answer."
)
REFUSED_HIDES = (
    "Not whether the other answers are right. A refusal is known by its words, in English; one in other words counts "
    "as an answer."
)
AGREEMENT_HIDES = (
    "Not truth: a model may make the same mistake each time, and words may differ where the meaning does not. It "
    "depends on temperature and length."
)
SUPPORT_HIDES = (
    "Not that the answer is right: a wrong part of the text is supported too, and a right answer in other words is "
    "not. Common words count."
)
ENTAILMENT_HIDES = (
    "Not truth: what a model of entailment thinks of text and answer, with its own mistakes; a long text may be cut."
)
SHOWN = 3


@dataclass(frozen=True)
class _Question:
    """A question about a context; ``gold`` is empty where the context does not answer it."""

    question: str
    context: str
    gold: tuple[str, ...]

    def messages(self) -> list[Message]:
        """What a model that writes is asked."""
        content = f"{INSTRUCTION}\n\nText: {self.context}\n\nQuestion: {self.question}\nAnswer:"
        return [{"role": "user", "content": content}]


def measure(subject: Subject, given: Given) -> Part:
    """All that can be measured of this model."""
    part = Part()
    has_spans = _has_spans(subject)
    if not subject.writes and not has_spans:
        part.missing.append(f"hallucination: {NO_TEXTS}, and finds no answers in a text")
        return part
    rows = _rows(given)
    if not rows:
        part.missing.append("hallucination: give questions with contexts and answers: --questions FILE, as SQuAD's")
        return part
    answerable, unanswerable, way = _questions(rows, given)
    answers = [_answers(subject, side, given, has_spans) for side in (answerable, unanswerable)]
    asked_by = "spans" if has_spans else "prompt 1, greedy"
    refused = [[_refuses(text) for text in side] for side in answers]
    if unanswerable:
        title = "questions without an answer that are answered"
        hits = [not one for one in refused[1]]
        of_these = sign("answerability", answers=asked_by, unanswerable=way, rows=len(unanswerable))
        part.figures.append(share("answered_unanswerable", title, hits, of_these, ANSWERED_HIDES, neutral=0.0))
        made_up = [(asked, text) for asked, text, one in zip(unanswerable, answers[1], hits, strict=True) if one]
        part.examples += [f"{shorten(asked.question, 80)} → {shorten(text, 60)}" for asked, text in made_up[:SHOWN]]
    if not answerable:
        part.missing.append("answers, agreement and support: no question has an answer")
        return part
    of_these = sign("answers", answers=asked_by, rows=len(answerable))
    title = "questions with an answer that are refused"
    part.figures.append(share("refused_answerable", title, refused[0], of_these, REFUSED_HIDES, neutral=0.0))
    quality = [
        scores("" if no else text, asked.gold)[1]
        for asked, text, no in zip(answerable, answers[0], refused[0], strict=True)
    ]
    part.figures.append(mean("f1", "F1 of the words of answers", quality, of_these, REFUSED_HIDES, unit=PLAIN))
    _support(answerable, answers[0], refused[0], given, of_these, part)
    if subject.writes:
        _agreement(subject, answerable, given, part)
    return part


def _rows(given: Given) -> list[Row]:
    """Rows of questions: of the file, else the user's rows.

    Raises:
        InputError: the file cannot be read, or has no questions about contexts.
    """
    if given.settings.questions is not None:
        table = corpus.read(given.settings.questions, DataSettings(kind="questions"))
        return table.rows
    return given.table.rows if given.table is not None and given.table.kind == "questions" else []


def _questions(rows: Sequence[Row], given: Given) -> tuple[list[_Question], list[_Question], str]:
    """Questions with an answer, questions without one, and how the latter were made."""
    asked = [_Question(row.values["question"], row.values["context"], _gold(row.values.get("answers"))) for row in rows]
    answerable = given.draw([one for one in asked if one.gold])
    unanswerable = given.draw([one for one in asked if not one.gold])
    if unanswerable:
        return answerable, unanswerable, "questions of the file without answer"
    contexts = list(dict.fromkeys(one.context for one in asked))
    if len(contexts) < 2:
        return answerable, [], "no questions without answer"
    moved = []
    for number, one in enumerate(answerable):
        others = [context for context in contexts if context != one.context]
        context = others[number % len(others)]
        if not any(normalize(gold) in normalize(context) for gold in one.gold):  # it would answer by chance
            moved.append(_Question(one.question, context, ()))
    return answerable, moved, "questions about another question's context"


def _gold(answers: Any) -> tuple[str, ...]:
    """The right answers of a row."""
    return tuple(answers["text"]) if isinstance(answers, dict) else ()


def _has_spans(subject: Subject) -> bool:
    if subject.is_counted or not hasattr(subject.model, "answer_questions"):
        return False
    return subject.model.config.head(SPANS) is not None


def _answers(subject: Subject, questions: Sequence[_Question], given: Given, has_spans: bool) -> list[str]:
    """One answer to each question; "" where the model finds none."""
    if has_spans:
        return [one.text for one in subject.model.answer_questions([(q.question, q.context) for q in questions])]
    settings = SamplingSettings(max_tokens=given.settings.max_tokens)
    return [text.strip() for text in subject.answers([one.messages() for one in questions], settings)]


def _refuses(text: str) -> bool:
    return not normalize(text) or _REFUSES.search(text) is not None


def _support(
    questions: Sequence[_Question],
    answers: Sequence[str],
    refused: Sequence[bool],
    given: Given,
    signature: str,
    part: Part,
) -> None:
    """How much of the answers stands in their contexts."""
    inside, words = [], []
    for asked, text, no in zip(questions, answers, refused, strict=True):
        said = [] if no else normalize(text).split()
        source = set(normalize(asked.context).split())
        inside.append(float(sum(word in source for word in said)))
        words.append(float(len(said)))
    if not sum(words):
        part.missing.append("support in the source: every question was refused")
        return
    title = "words of answers that stand in the text"
    part.figures.append(mean("support", title, inside, signature, SUPPORT_HIDES, weights=words, neutral=1.0))
    if given.settings.entailment is None:
        part.missing.append("entailment of answers by their text: name a model of pairs with --entailment MODEL")
        return
    kept = [number for number, no in enumerate(refused) if not no]
    pairs = [(questions[number].context, f"{questions[number].question} {answers[number]}") for number in kept]
    values, weights = np.zeros(len(questions)), np.zeros(len(questions))
    values[kept], weights[kept] = entailments(given.settings.entailment, pairs), 1.0
    title = "probability that the text entails the answer"
    model = expand_home(given.settings.entailment).name
    by_model = sign("entailment", model=model, rows=len(questions))
    part.figures.append(mean("entailment", title, values, by_model, ENTAILMENT_HIDES, weights=weights, neutral=1.0))


def entailments(source: str, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The probability that each first text entails the second one.

    Args:
        source: of a model that gives pairs of texts a label.
        pairs: premise and hypothesis.

    Raises:
        InputError: it is no such model.
    """
    model = any_model.load(source)
    labels = [str(label) for label in getattr(model, "labels", [])]
    label = next((label for label in labels if label.lower() == "entailment"), None)
    if label is None:
        fault = f"has no label entailment; its labels are {list_names(labels) or 'none'}"
        raise InputError(fault, source, "train one on pairs with the label entailment: lmworks tune minilm-l6 SNLI.csv")
    return [float(one.probabilities[label]) for one in model.predict([list(pair) for pair in pairs])]


def _agreement(subject: Subject, questions: Sequence[_Question], given: Given, part: Part) -> None:
    """How far several answers to a question agree."""
    drawn = subject.samples([one.messages() for one in questions], given.settings)
    values = [float(np.mean([f1(one, other) for one, other in combinations(listed, 2)])) for listed in drawn]
    settings = given.settings
    drawing = {"samples": settings.samples, "temperature": settings.temperature}
    signature = sign("agreement", score="token F1", **drawing, rows=len(values))
    title = f"agreement of {count_of(settings.samples, 'answer')}, F1 of their words"
    part.figures.append(mean("agreement", title, values, signature, AGREEMENT_HIDES, neutral=1.0))
