"""The next token of one answer: what its request, the model's publisher and a grammar make of the logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from lmworks.generate.sampling import Rules, SamplingSettings, allow_only, apply_rules, largest, log_softmax, pick


class TokenMask(Protocol):
    """A grammar along one answer.

    Attributes:
        is_finished: whether nothing can follow what was accepted.
        is_shortened: whether it ended because of the limit.
    """

    is_finished: bool
    is_shortened: bool

    def begin(self, left: int) -> list[int]:
        """The tokens that every answer begins with; ``left`` is how many it may have.

        Raises:
            InputError: these are too few.
        """

    def mask(self) -> np.ndarray:
        """(V,) bool: the tokens that may come next, those that end a text among them; one at least."""

    def accept(self, token: int, left: int) -> list[int]:
        """What the answer goes on with, where a token was chosen and ``left`` may still come, this one among them: the
        token and those that must follow it, or an ending for which there is room, which may be empty."""


@dataclass(frozen=True)
class ChoiceSettings:
    """How the tokens of an answer are chosen.

    Attributes:
        sampling: of them temperature and filters, seed, stop; ``max_tokens`` is not used here.
        presence_penalty: taken from the logit of each token that the answer has already (OpenAI's API).
        frequency_penalty: taken from it once for each time that the answer has it.
        logit_bias: added to the logits of these tokens.
        top_log_probabilities: how many of the likeliest tokens are told at each place; None: no scores at all.
        grammar: makes the mask of an answer.
        keeps_special: special tokens are written by their names, as calls of tools need them.
    """

    sampling: SamplingSettings
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_log_probabilities: int | None = None
    grammar: Callable[[], TokenMask] | None = None
    keeps_special: bool = False


class TokenScore(NamedTuple):
    """A token with log p of it by the model itself, before penalties and filters, and the likeliest at its place."""

    id: int
    log_probability: float
    top: list[tuple[int, float]]


class TokenChooser:
    """Chooses the tokens of one answer.

    Args:
        settings: of its request.
        rules: what the model's publisher demands.
        end_ids: what ends a text.
        generator: draws the tokens.
        limit: tokens that the answer may have.

    Raises:
        InputError: no text of the grammar is so short.
    """

    def __init__(
        self,
        settings: ChoiceSettings,
        rules: Rules,
        end_ids: set[int],
        generator: np.random.Generator,
        limit: int,
    ) -> None:
        self._settings, self._rules, self._end_ids, self._generator = settings, rules, end_ids, generator
        self._biased = np.array(list(settings.logit_bias), np.int64)
        self._biases = np.array(list(settings.logit_bias.values()), np.float32)
        self._counts: Counter[int] = Counter()
        self._grammar = settings.grammar() if settings.grammar is not None else None
        self._following = self._grammar.begin(limit) if self._grammar is not None else []

    @property
    def is_finished(self) -> bool:
        """Whether a grammar lets nothing follow."""
        return self._grammar is not None and self._grammar.is_finished and not self._following

    @property
    def is_shortened(self) -> bool:
        """Whether a grammar ended the answer because of the limit."""
        return self._grammar is not None and self._grammar.is_shortened

    def choose(self, logits: np.ndarray, ids: Sequence[int], new: int, limit: int) -> int | None:
        """The next token; None where a grammar ends the answer without one.

        Args:
            logits: (V,) float32; they are not changed.
            ids: all ids so far, those of the prompt among them.
            new: how many of them are new.
            limit: how many more may come.
        """
        if not self._following:
            self._following = self._choose(logits, ids, new, limit)
        if not self._following:
            return None
        token = self._following.pop(0)
        self._counts[token] += 1
        return token

    def _choose(self, logits: np.ndarray, ids: Sequence[int], new: int, limit: int) -> list[int]:
        """A token, and those that a grammar demands after it; arguments as of :meth:`choose`."""
        sampling, grammar = self._settings.sampling, self._grammar
        scores = apply_rules(self._changed(logits)[None], sampling, self._rules, [ids], [new], [limit], self._end_ids)
        if grammar is not None:
            scores = allow_only(scores, logits[None], grammar.mask()[None])
        (token,) = pick(scores, sampling, [self._generator], [ids])
        return [token] if grammar is None else grammar.accept(token, limit)

    def _changed(self, logits: np.ndarray) -> np.ndarray:
        """The logits with biases and penalties."""
        frequency, presence = self._settings.frequency_penalty, self._settings.presence_penalty
        penalizes = bool(self._counts) and (frequency != 0 or presence != 0)
        if not penalizes and not len(self._biased):
            return logits
        logits = logits.copy()
        logits[self._biased] += self._biases
        if penalizes:
            counts = np.array(list(self._counts.values()), np.float32)
            logits[list(self._counts)] -= frequency * counts + presence
        return logits


def score_tokens(logits: np.ndarray, tokens: Sequence[int], top: int) -> list[TokenScore]:
    """Scores of tokens that came.

    Args:
        logits: (n, V) float32, before each of them.
        tokens: n of them.
        top: how many of the likeliest are told beside each.
    """
    scores = []
    for row, token in zip(log_softmax(logits), tokens, strict=True):
        likeliest = largest(row, top).tolist() if top else []
        scores.append(TokenScore(token, float(row[token]), [(other, float(row[other])) for other in likeliest]))
    return scores
