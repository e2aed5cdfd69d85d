"""Answers to questions as spans of their contexts, by a model with a head for spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.evaluate.answer_spans import MAX_ANSWER_TOKENS, STRIDE, BestSpan, best_span
from lmworks.evaluate.outputs import head_logits
from lmworks.language_model.head_inputs import HeadInputs
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.question_windows import (
    EncodedQuestion,
    Pair,
    QuestionWindow,
    encode_questions,
    label_window,
    windows_of,
)
from lmworks.model.head_requests import SPANS
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer


class SpanAnswer(NamedTuple):
    """An answer as a span of its context.

    Attributes:
        text: exactly as it stands there; empty: the context does not answer the question.
        start, end: its first character and the one after its last; both 0 where there is no answer.
        probability: of this answer among all that were possible.
        null_probability: that there is no answer; None of a model that answers every question.
    """

    text: str
    start: int
    end: int
    probability: float
    null_probability: float | None = None


def best_spans(
    network: Transformer, windows: Sequence[Example], most: int, has_null: bool
) -> list[tuple[EncodedQuestion, BestSpan]]:
    """The best span of each question, over all its windows.

    Args:
        network: with a head for spans.
        windows: of any number of questions, those of a question one after another.
        most: tokens of the longest answer.
        has_null: whether "no answer" is possible too.

    Returns:
        The questions in their order, each with its best span.
    """
    by_question: dict[int, list[tuple[int, np.ndarray]]] = {}
    questions: dict[int, EncodedQuestion] = {}
    examples = [label_window(example, SPANS, None) for example in windows]
    for example, logits in zip(examples, head_logits(network, examples, SPANS), strict=True):
        window = example.origin
        assert isinstance(window, QuestionWindow), "made by windows_of"
        questions[id(window.question)] = window.question
        by_question.setdefault(id(window.question), []).append((window.begin, logits))
    return [
        (question, best_span(by_question[number], len(question.tokens.ids), most, has_null))
        for number, question in questions.items()
    ]


def answer_text(question: EncodedQuestion, best: BestSpan, threshold: float | None) -> SpanAnswer:
    """The best span as text, or that there is no answer.

    Args:
        question: with its context.
        best: its best span.
        threshold: of the null margin, above which there is no answer; None: there always is one.
    """
    if threshold is not None and best.null_margin > threshold:
        return SpanAnswer("", 0, 0, best.null_probability or 0.0, best.null_probability)
    start, end = question.characters(best.first, best.last)
    return SpanAnswer(question.context[start:end], start, end, best.probability, best.null_probability)


def find_answers(
    pairs: Sequence[Pair],
    network: Transformer,
    tokenizer: Tokenizer,
    decoder_start: int | None,
    input_format: InputFormat | None,
    source: str,
    places: Sequence[str] = (),
) -> list[SpanAnswer]:
    """The answer to each question as a span of its context.

    Args:
        pairs: questions and contexts.
        network: with a head for spans.
        tokenizer: the model's.
        decoder_start: of an encoder-decoder, where the model's files say it.
        input_format: of the run that trained it: how windows move, the longest answer, the threshold of "no answer".
        source: of the model, for errors.
        places: of the pairs, for errors; default: their numbers.

    Raises:
        InputError: the model has no head for spans, or a text is empty.
    """
    config = network.config
    if config.head(SPANS) is None:
        hint = f"train one: lmworks tune {source} FILE, with questions, contexts and answers"
        raise InputError("the model has no head that finds answers in a text", source, hint)
    places = places or [f"question {number}" for number in range(1, len(pairs) + 1)]
    for pair, place in zip(pairs, places, strict=True):
        for text, name in zip(pair, ("question", "context"), strict=True):
            if not text.strip():
                raise InputError(f"the {name} is empty", place, f"give a {name}")
    span_format = input_format if input_format is not None and input_format.kind == "span" else None
    stride, most = (span_format.stride, span_format.max_answer_tokens) if span_format else (STRIDE, MAX_ANSWER_TOKENS)
    threshold = span_format.null_threshold if span_format else None
    longest = (span_format.max_tokens if span_format else None) or network.max_text_tokens
    inputs = HeadInputs.of(tokenizer, config, decoder_start, min(longest, network.max_text_tokens))
    questions = encode_questions(pairs, places, tokenizer, inputs)
    windows = [window for question in questions for window in windows_of(question, inputs, stride)]
    best = best_spans(network, windows, most, threshold is not None)
    return [answer_text(question, span, threshold) for question, span in best]
