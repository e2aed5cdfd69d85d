"""Questions and their contexts as models with a head for spans read them: a window over the context at a time.

A pair is read as question and context; of a context that is longer than the window, consecutive windows share some
tokens. A window without the whole answer points to its first token ([CLS]), as do questions without an answer (Devlin
et al. 2019, section 4.3). Knows no task and no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import tokenizers

from lmworks.base.errors import InputError
from lmworks.data.batch import Example, Labels
from lmworks.evaluate.answer_spans import STRIDE
from lmworks.language_model.head_inputs import PAIR_SEPARATOR, HeadInputs
from lmworks.text.tokenizer import Tokenizer

Pair = tuple[str, str]
"""A question and its context."""


class ContextTokens(NamedTuple):
    """A context as tokens.

    Attributes:
        ids: (T,) int32.
        starts, ends: (T,) int32 first character of each token and the one after its last, without spaces before it.
    """

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True, eq=False)
class EncodedQuestion:
    """A question with its context as tokens.

    Attributes:
        question, context: the texts.
        place: of its row.
        question_ids: of the question, with the separator where the tokenizer puts none between two texts.
        tokens: of the context.
        dropped: tokens of the question that were cut off.
    """

    question: str
    context: str
    place: str
    question_ids: list[int]
    tokens: ContextTokens
    dropped: int = 0

    def token_span(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and the last token of the characters start..end; None: the tokenizer has no token for them."""
        begins, ends = self.tokens.starts, self.tokens.ends
        inside = np.flatnonzero((ends > start) & (begins < end) & (ends > begins))
        return (int(inside[0]), int(inside[-1])) if len(inside) else None

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """The characters of the tokens first..last, both inside, without spaces around them."""
        start, end = int(self.tokens.starts[first]), int(self.tokens.ends[last])
        text = self.context[start:end]
        return start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())


class QuestionWindow(NamedTuple):
    """The part of a context that an example holds.

    Attributes:
        question: whose.
        begin, end: its tokens of the context.
        offset: where they begin in the example.
    """

    question: EncodedQuestion
    begin: int
    end: int
    offset: int


def encode_questions(
    pairs: Sequence[Pair], places: Sequence[str], tokenizer: Tokenizer, inputs: HeadInputs
) -> list[EncodedQuestion]:
    """Questions with their contexts as tokens; a question keeps at most half of the room.

    Each context is encoded once, however many questions it has.

    Raises:
        InputError: a context has a token without a row in the embeddings.
    """
    longest = inputs.room(True) // 2
    if not inputs.frame.middle:
        joined = tokenizer.encodings([f"{question}{PAIR_SEPARATOR}{context}" for question, context in pairs])
        divided = [
            _divide(pieces, context, len(question) + len(PAIR_SEPARATOR))
            for pieces, (question, context) in zip(joined, pairs, strict=True)
        ]
        question_ids, contexts = [ids for ids, _ in divided], [tokens for _, tokens in divided]
    else:
        question_ids = tokenizer.encode_many([question for question, _ in pairs])
        distinct = list(dict.fromkeys(context for _, context in pairs))
        encoded = zip(distinct, tokenizer.encodings(distinct), strict=True)
        by_text = {context: _divide(pieces, context, 0)[1] for context, pieces in encoded}
        contexts = [by_text[context] for _, context in pairs]
    questions = []
    for (question, context), place, ids, tokens in zip(pairs, places, question_ids, contexts, strict=True):
        tokenizer.check_rows(tokens.ids.tolist(), context)
        kept = ids[: max(0, longest - 1)] + ids[-1:] if len(ids) > longest else ids
        questions.append(EncodedQuestion(question, context, place, kept, tokens, len(ids) - len(kept)))
    return questions


def _divide(
    pieces: Iterable[tuple[int, tokenizers.Encoding]], context: str, prefix: int
) -> tuple[list[int], ContextTokens]:
    """Ids of the tokens that begin in the first ``prefix`` characters, and the tokens of the context after them."""
    before, ids, starts, ends = [], [], [], []
    for begin, encoding in pieces:
        for token, (first, end) in zip(encoding.ids, encoding.offsets, strict=True):
            low, high = begin + first - prefix, begin + end - prefix
            if low < 0:
                before.append(token)
                continue
            while low < high and context[low].isspace():
                low += 1
            ids.append(token)
            starts.append(low)
            ends.append(high)
    return before, ContextTokens(*(np.array(values, dtype=np.int32) for values in (ids, starts, ends)))


def windows_of(question: EncodedQuestion, inputs: HeadInputs, stride: int) -> list[Example]:
    """The windows of a context, without an answer: each points to its first token.

    Args:
        question: with its context.
        inputs: of the model.
        stride: tokens that two consecutive windows share, at most half of a window; 0: there is one window alone.

    Raises:
        InputError: the context is longer than a window, and there is to be one alone; or it has no token.
    """
    room = inputs.room(bool(inputs.frame.middle)) - len(question.question_ids)
    length = len(question.tokens.ids)
    if not length:
        raise InputError("the context has no token", question.place, "give a text, or leave the question out")
    if length > room and stride == 0:
        fault = f"the context has {length} tokens, and beside the question a window of the model holds {room}"
        hint = f"let windows move over it: --task.stride {STRIDE}; or shorten the context"
        raise InputError(fault, question.place, hint)
    shared = min(stride, room // 2)
    begins = range(0, max(1, length - shared), room - shared)
    return [_window(question, begin, min(begin + room, length), inputs) for begin in begins]


def _window(question: EncodedQuestion, begin: int, end: int, inputs: HeadInputs) -> Example:
    part = question.tokens.ids[begin:end].tolist()
    is_pair = bool(inputs.frame.middle)
    parts = [question.question_ids, part] if is_pair else [[*question.question_ids, *part]]
    example = inputs.example(parts, question.place)
    offset = len(inputs.frame.opening) + len(question.question_ids) + len(inputs.frame.middle) * is_pair
    window = QuestionWindow(question, begin, end, offset)
    return replace(example, origin=window, dropped=question.dropped if begin == 0 else 0)


def label_window(example: Example, head: str, span: tuple[int, int] | None) -> Example:
    """A window with the tokens of the answer, where it holds all of them; else it points to its first token.

    Args:
        example: of :func:`windows_of`.
        head: name of the head.
        span: first and last token of the answer in the context; None: there is no answer.
    """
    window = example.origin
    assert isinstance(window, QuestionWindow), "made by windows_of"
    tokens = np.concatenate([[0], window.offset + np.arange(window.end - window.begin)])
    start, end = 0, 0
    if span is not None and window.begin <= span[0] and span[1] < window.end:
        start, end = (window.offset + token - window.begin for token in span)
    return replace(example, labels={head: Labels.of_span(tokens, start, end)})
