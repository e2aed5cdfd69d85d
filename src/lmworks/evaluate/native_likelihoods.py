"""How likely texts, and choices after prompts, are to a decoder in the native engine. Imports no torch.

Prompts are read side by side, a token of each in every pass over the weights, as the engine multiplies many tokens of
different sequences as fast as many of one; long parts have passes of their own. After a prompt its choices follow in
the same sequence, one after the other. Prompts are sorted, so that what some that follow one another begin with, as an
instruction and examples, is read once and copied.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lmworks.evaluate import progress
from lmworks.evaluate.text_windows import ChoiceScores, Ids, Score, check_choices, scores_of, windows_of
from lmworks.generate.engine_sequences import EngineSequences
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.prefix_length import common_length
from lmworks.model.chunks import EVALUATED_LOGITS
from lmworks.text.tokenizer import Tokenizer

MOST_ROWS, CACHE_BYTES = 128, 1 << 29
"""Prompts that are read side by side at most, and the keys and values up to which there may be more than one."""
MOST_PAIRS = 1 << 13
"""Pairs of a token and a key before it, from which on a part of a text is read in passes of its own: beside others each
token reads all its keys anew, in a pass of its own they are read once, and so are the weights."""
SHARED = 32
"""Tokens of a beginning that is read once for several prompts, at least: a pass of its own costs about as much as so
many tokens among others."""

Part = tuple[list[int], bool]
"""Tokens that are read at once, and whether the logits after each of them are wanted."""


def score_texts(
    stepper: NativeStepper,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    context: int | None = None,
    stride: int | None = None,
    computed: str = "",
) -> list[Score]:
    """How likely each text is, in the order given; as evaluate/scoring.score_texts.

    Args:
        stepper: of the engine; its rows stay.
        tokenizer: of the model.
        texts: of any length.
        context, stride: of the windows of long texts (text_windows.windows_of).
        computed: begins the signature of each score.
    """
    windowed = windows_of(texts, tokenizer, stepper.context, context, stride)
    prompts, choices = [], []
    for window in (window for text in windowed for window in text.windows):
        ids, first = window.ids.tolist(), int(window.loss.argmax())
        prompts.append(ids[:first])
        choices.append([ids[first:]])
    scores = choice_scores(stepper, prompts, choices)
    return scores_of(windowed, (-float(score.log_probabilities[0]) for score in scores), computed)


def choice_scores(
    stepper: NativeStepper, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]
) -> list[ChoiceScores]:
    """How likely each choice is after its prompt; as evaluate/choices.choice_scores.

    Args:
        stepper: of the engine; its rows stay.
        prompts: token ids of each prompt.
        choices: for each prompt the token ids of its choices, each with the end that a whole answer has.

    Raises:
        InputError: a prompt or a choice has no token, or both together are longer than the context.
    """
    check_choices(prompts, choices, stepper.context)
    scores = [ChoiceScores.of(len(answers)) for answers in choices]
    sequences, before = stepper.sequences, set(stepper.sequences.lengths)
    try:
        waiting = _readings(sequences, prompts, choices, scores)
        active: list[_Reading] = []
        while True:
            while len(active) < MOST_ROWS and (not active or sequences.cache_bytes() < CACHE_BYTES):
                if (reading := next(waiting, None)) is None:
                    break
                active.append(reading)
            if not active:
                return scores
            _pass(sequences, active)
            active = [reading for reading in active if not reading.ended]
    finally:
        sequences.remove([number for number in sequences.lengths if number not in before])


def choice_likelihoods(
    stepper: NativeStepper, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]
) -> list[np.ndarray]:
    """For each prompt an array with log p of each choice; arguments and errors as of :func:`choice_scores`."""
    return [scores.log_probabilities for scores in choice_scores(stepper, prompts, choices)]


class _Reading:
    """A prompt and its choices on their way through a sequence of the engine.

    Attributes:
        number: of the sequence.
        part: what is read next.
        ended: whether nothing is left to read.
    """

    def __init__(self, number: int, parts: Generator[Part, np.ndarray, None]) -> None:
        self.number, self._parts, self.ended = number, parts, False
        self.part = next(parts)

    def take(self, logits: np.ndarray) -> None:
        """The part was read: (N, V) logits after its tokens, where they were wanted."""
        try:
            self.part = self._parts.send(logits)
        except StopIteration:
            self.ended = True


def _readings(
    sequences: EngineSequences, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]], scores: list[ChoiceScores]
) -> Iterator[_Reading]:
    """Begins with one prompt after the other, when it is asked for the next."""
    beginning, order = _Beginning(sequences), sorted(range(len(prompts)), key=lambda index: list(prompts[index]))
    for index, following in zip(order, [*order[1:], None], strict=False):
        prompt = list(prompts[index])
        shared = 0 if following is None else common_length(prompt[:-1], prompts[following])
        longest = max(map(len, choices[index]))
        number = beginning.sequence(prompt, shared, min(len(prompt) + longest, sequences.context))
        yield _Reading(number, _parts(sequences, number, prompt, choices[index], scores[index]))


@dataclass
class _Beginning:
    """What prompts that follow one another begin with, in a sequence of its own."""

    sequences: EngineSequences
    number: int | None = None
    ids: tuple[int, ...] = ()

    def sequence(self, prompt: list[int], shared: int, capacity: int) -> int:
        """A new sequence that has as much of a prompt as was read, or is worth to be read now for the next prompt, too.

        Args:
            prompt: its last token is to be read again, for the logits after it.
            shared: tokens with which the next prompt begins, too.
            capacity: of the new sequence.
        """
        known = common_length(self.ids, prompt[:-1])
        if shared >= known + SHARED:
            if self.number is None:
                self.number = self.sequences.new(shared)
            self.sequences.truncate(self.number, known)
            self.sequences.append([self.number] * (shared - known), prompt[known:shared], [])
            self.ids, known = tuple(prompt[:shared]), shared
        if not known or self.number is None:
            return self.sequences.new(capacity)
        return self.sequences.copy(self.number, known, capacity)


def _parts(
    sequences: EngineSequences, number: int, prompt: list[int], answers: Sequence[Ids], scores: ChoiceScores
) -> Generator[Part, np.ndarray, None]:
    """The parts in which a prompt and its choices are read; takes the logits after each of them."""
    for part in _cut(prompt[:-1], sequences.lengths[number]):
        yield part, False
    (logits,) = yield prompt[-1:], True
    first = _NextToken(logits)
    for place, answer in enumerate(answers):
        scores.add(place, *first.score(answer[0]))
    for place, answer in enumerate(answers):
        if len(answer) > 1:
            sequences.truncate(number, len(prompt))
            targets = iter(answer[1:])
            for part in _cut([*prompt, *answer[:-1]], len(prompt)):
                for row in (yield part, True):
                    scores.add(place, *_NextToken(row).score(next(targets)))
    sequences.remove([number])
    progress.report(len(answers))


def _cut(ids: list[int], first: int) -> Iterator[list[int]]:
    """The tokens of a text from the first on: one by one, or of long texts as many as there may be logits at a time."""
    size = 1 if (len(ids) - first) * len(ids) < MOST_PAIRS else EVALUATED_LOGITS
    return (ids[begin : begin + size] for begin in range(first, len(ids), size))


def _pass(sequences: EngineSequences, active: list[_Reading]) -> None:
    """Read the next parts, of as many readings as there may be logits at a time."""
    chosen: list[_Reading] = []
    numbers: list[int] = []
    tokens: list[int] = []
    wanted: list[int] = []
    for reading in active:
        part, is_wanted = reading.part
        if chosen and len(tokens) + len(part) > EVALUATED_LOGITS:
            continue
        chosen.append(reading)
        wanted += range(len(tokens), len(tokens) + len(part)) if is_wanted else ()
        numbers += [reading.number] * len(part)
        tokens += part
    logits, begin = sequences.append(numbers, tokens, wanted), 0
    for reading in chosen:
        end = begin + len(reading.part[0]) * reading.part[1]
        reading.take(logits[begin:end])
        begin = end


class _NextToken:
    """The distribution of the next token, from (V,) logits."""

    def __init__(self, logits: np.ndarray) -> None:
        self._logits, self._largest = logits, logits.max()
        self._log_sum = float(self._largest) + math.log(float(np.exp(logits - self._largest).sum()))

    def score(self, token: int) -> tuple[float, bool]:
        """log p of a token, and whether it is the likeliest."""
        return float(self._logits[token]) - self._log_sum, bool(self._logits[token] == self._largest)
