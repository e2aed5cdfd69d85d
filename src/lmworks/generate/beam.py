"""Beam search: the likeliest texts rather than the likeliest next token, by Hugging Face's names and rules.

Each prompt keeps its ``num_beams`` best unfinished texts and its ``num_beams`` best finished ones; all prompts step
through the network together. Knows ids only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lmworks.generate.decode import Sequences, Steps, Token
from lmworks.generate.sampling import Rules, SamplingSettings, apply_rules, largest, log_softmax, penalize
from lmworks.generate.stepper import Stepper


class Hypothesis(NamedTuple):
    """A finished text: what it is judged by, log p / length ** length_penalty; log p; its new ids, the end's too."""

    score: float
    log_probability: float
    ids: list[int]


class Continuation(NamedTuple):
    """A beam with one more token: which beam, which token, and log p of the text so far."""

    beam: int
    token: int
    log_probability: float


@dataclass
class Search:
    """The beams of one prompt.

    Attributes:
        settings: num_beams, length_penalty, early_stopping.
        end_ids: what ends a text.
        limit: new tokens that a text may have.
        running: log p of each unfinished text, the best first; empty when the search has ended.
        finished: the best finished texts, the best first.
        length: new tokens of the unfinished texts.
    """

    settings: SamplingSettings
    end_ids: set[int]
    limit: int
    running: list[float] = field(default_factory=lambda: [0.0])
    finished: list[Hypothesis] = field(default_factory=list)
    length: int = 0

    def step(self, scores: np.ndarray, new_ids: Sequence[Sequence[int]]) -> list[Continuation]:
        """Let each beam grow by one token.

        Args:
            scores: (beams, V) log-probabilities of each beam's next token.
            new_ids: for each beam its new ids so far.

        Returns:
            How the texts that go on do so, as in ``running``; none where the search has ended.
        """
        self.length += 1
        width, last = self.settings.num_beams, self.length == self.limit
        goes_on: list[Continuation] = []
        # as many candidates as leave enough beams even where all the best ones end
        for rank, choice in enumerate(self._best(scores, max(2, 1 + len(self.end_ids)) * width)):
            if not last and choice.token not in self.end_ids:
                goes_on.append(choice)
            elif rank < width:  # an end that is not among the best would not have been kept as a beam either
                self._finish(choice, [*new_ids[choice.beam], choice.token])
        goes_on = goes_on[:width]
        self.running = [choice.log_probability for choice in goes_on]
        if not self._can_improve():
            self.running, goes_on = [], []
        return goes_on

    def _best(self, scores: np.ndarray, count: int) -> list[Continuation]:
        total = (scores + np.array(self.running, np.float32)[:, None]).ravel()
        best = largest(total, count)
        pairs = zip(best.tolist(), total[best].tolist(), strict=True)
        vocab_size = scores.shape[1]
        return [
            Continuation(place // vocab_size, place % vocab_size, value) for place, value in pairs if value != -np.inf
        ]

    def _finish(self, choice: Continuation, ids: list[int]) -> None:
        score = choice.log_probability / self.length**self.settings.length_penalty
        self.finished.append(Hypothesis(score, choice.log_probability, ids))
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self.finished[self.settings.num_beams :]

    def _can_improve(self) -> bool:
        """Whether an unfinished text may still come out better than the worst finished one.

        As ``early_stopping`` says; False supposes, as Hugging Face does, that what comes has the length of now.
        """
        if not self.running:
            return False
        if len(self.finished) < self.settings.num_beams:
            return True
        if self.settings.early_stopping is True:
            return False
        penalty = self.settings.length_penalty
        length = self.limit if self.settings.early_stopping == "never" and penalty > 0 else self.length
        return self.running[0] / length**penalty > self.finished[-1].score


def search(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    end_ids: set[int],
    rules: Rules | None = None,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> list[list[Hypothesis]]:
    """For each prompt its best texts, at most ``num_beams``, the best first.

    Args:
        stepper, prompts, settings, end_ids, rules: as in generate/decode.py.
        prefixes: of an encoder-decoder: ids after its start that each text begins with; not among the new ones.

    Raises:
        InputError: as decode does.
    """
    rules = rules or Rules()
    rows = Sequences(stepper, prompts, rules, settings.max_tokens, prefixes)
    searches = [Search(settings, end_ids, limit) for limit in rows.limits]
    alive = searches
    while alive:
        scores = log_softmax(rows.logits)
        scores = apply_rules(scores, settings, rules, rows.ids, rows.new, rows.limits, end_ids)
        scores = penalize(scores, settings.repetition_penalty, rows.ids)
        new_ids = [ids[len(ids) - count :] for ids, count in zip(rows.ids, rows.new, strict=True)]
        parents: list[int] = []
        tokens: list[int] = []
        row = 0
        for prompt in alive:
            beams = slice(row, row + len(prompt.running))
            for choice in prompt.step(scores[beams], new_ids[beams]):
                parents.append(row + choice.beam)
                tokens.append(choice.token)
            row = beams.stop
        alive = [prompt for prompt in alive if prompt.running]
        if alive:
            rows.step(parents, tokens)
    return [prompt.finished for prompt in searches]


def decode_best(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    end_ids: set[int],
    rules: Rules | None = None,
) -> Steps:
    """The best text of each prompt, token by token as generate/decode.py yields them, without log-probabilities."""
    searched = search(stepper, prompts, settings, end_ids, rules)
    best = [hypotheses[0].ids if hypotheses else [] for hypotheses in searched]
    ended: set[int] = set()
    for place in range(max(map(len, best), default=0)):
        step = [Token(ids[place]) if place < len(ids) and row not in ended else None for row, ids in enumerate(best)]
        if any(token is not None for token in step):
            ended |= (yield step) or set()
