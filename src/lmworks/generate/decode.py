"""Decoding: prompts as ids in, new ids out, one for each row at each step. Knows nothing of texts and tokenizers.

A decoder continues its prompts; an encoder-decoder answers them, its decoder beginning with the start token. The
logits come from a Stepper, so a batch gives what each prompt would give alone. Rows that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lmworks.base.errors import InputError
from lmworks.generate.grammar_matcher import GrammarMatcher
from lmworks.generate.sampling import (
    Rules,
    SamplingSettings,
    allow_only,
    apply_rules,
    as_array,
    log_probabilities,
    pick,
)
from lmworks.generate.stepper import RowStart, Stepper


class Token(NamedTuple):
    """A new token: its id, and log p of it by the model itself, before penalties and filters (where asked for)."""

    id: int
    log_probability: float | None = None


Steps = Generator[list[Token | None], set[int] | None, None]


def decode(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    end_ids: set[int],
    rules: Rules | None = None,
    with_log_probabilities: bool = False,
    grammars: Sequence[GrammarMatcher] = (),
) -> Steps:
    """Yield, step by step, one new token for each prompt; None for those that have ended, or wait for others.

    The token that ends a row is yielded too. A row also ends after ``max_tokens``, at the end of its grammar, and at
    the end of the context unless ``settings.slide``. A consumer may end rows early by sending a set of row numbers.

    Tokens that a grammar demands are yielded one after the other, and computed together with the next one that is
    chosen: rows without such tokens wait so long. With log-probabilities, or a context that slides, each is computed
    by itself; a seed draws the same text.

    Args:
        stepper: of a decoder, or of an encoder-decoder: then the prompts are its sources. Its earlier rows are dropped.
        prompts: token ids.
        settings: without beams (generate/beam.py has those).
        end_ids: what ends a text.
        rules: what the model's publisher demands; an encoder-decoder needs its start token.
        with_log_probabilities: give the log-probability of each token.
        grammars: for each prompt a new matcher of what its text must look like, or none at all.

    Raises:
        InputError: a prompt is empty or leaves no room in the context; there is nothing to slide; a grammar has no
            text that is short enough.
    """
    rules = rules or Rules()
    rows = Sequences(stepper, prompts, rules, settings.max_tokens, slide=bool(settings.slide))
    choose = _Chooser(rows, settings, rules, end_ids, grammars)
    # what each row goes on with: the token that was chosen, and those that its grammar demands after it
    queues = [matcher.begin(limit) for matcher, limit in zip(grammars, rows.limits, strict=bool(grammars))]
    queues = queues or [[] for _ in prompts]
    at_once = not (with_log_probabilities or settings.slide)
    alive = list(range(len(prompts)))
    while alive:
        waiting = [place for place, row in enumerate(alive) if not queues[row]]
        if len(waiting) == len(alive) or not at_once:
            rows.compute()
        waiting = [place for place in waiting if not rows.pending[place]]
        for place, following in zip(waiting, choose(waiting, alive), strict=True):
            queues[alive[place]] = following
        tokens = [queues[row].pop(0) if queues[row] else None for row in alive]
        step: list[Token | None] = [None] * len(prompts)
        for row, token in zip(alive, _with_likelihoods(rows, tokens, with_log_probabilities), strict=True):
            step[row] = token
        rows.write(tokens)
        stopped = (yield step) or set()
        going_on = [
            place
            for place, row in enumerate(alive)
            if tokens[place] not in end_ids and rows.limits[place] > 0 and row not in stopped
            if not grammars or queues[row] or not grammars[row].is_finished
        ]
        alive = [alive[place] for place in going_on]
        if alive:
            rows.keep(going_on)


class _Chooser:
    """Chooses the next tokens of rows; arguments as of :func:`decode`."""

    def __init__(
        self,
        rows: Sequences,
        settings: SamplingSettings,
        rules: Rules,
        end_ids: set[int],
        grammars: Sequence[GrammarMatcher],
    ) -> None:
        self._rows, self._settings, self._rules = rows, settings, rules
        self._end_ids, self._grammars = end_ids, grammars
        self._prompts = len(rows.ids)

    @cached_property
    def _generators(self) -> list[np.random.Generator]:
        """One for each prompt; made where a token is drawn, since greedy decoding need not wait for numpy.random."""
        return [np.random.default_rng(self._settings.seed) for _ in range(self._prompts)]

    def __call__(self, places: Sequence[int], alive: Sequence[int]) -> list[list[int]]:
        """For the rows at these places what each goes on with.

        Args:
            places: among the rows that are there.
            alive: for each row that is there the number of its prompt.
        """
        if not places:
            return []
        rows, numbers = self._rows, [alive[place] for place in places]
        logits = rows.logits if len(places) == len(alive) else rows.logits[list(places)]
        ids, limits = [rows.ids[place] for place in places], [rows.limits[place] for place in places]
        new = [rows.new[place] for place in places]
        scores = apply_rules(logits, self._settings, self._rules, ids, new, limits, self._end_ids)
        if self._grammars:
            scores = allow_only(scores, logits, np.stack([self._grammars[number].mask() for number in numbers]))
        generators = [self._generators[number] for number in numbers] if self._settings.temperature else []
        tokens = pick(scores, self._settings, generators, ids)
        if not self._grammars:
            return [[token] for token in tokens]
        chosen = zip(numbers, tokens, limits, strict=True)
        return [self._grammars[number].accept(token, left) for number, token, left in chosen]


def _with_likelihoods(rows: Sequences, tokens: Sequence[int | None], wanted: bool) -> list[Token | None]:
    """The tokens of the rows that are there, with their log-probabilities where they are wanted."""
    if not wanted:
        return [None if token is None else Token(token) for token in tokens]
    places = [place for place, token in enumerate(tokens) if token is not None]
    chosen = [token for token in tokens if token is not None]
    likelihoods = dict(zip(places, log_probabilities(rows.logits[places], chosen), strict=True))
    return [None if token is None else Token(token, likelihoods[place]) for place, token in enumerate(tokens)]


class Sequences:
    """The ids of rows that grow through a stepper, and how many more each may get.

    Args:
        stepper: its earlier rows are dropped.
        prompts: what is continued, or the sources of an encoder-decoder.
        rules: of them the start token.
        max_tokens: how many new ones may come.
        prefixes: of an encoder-decoder: ids after the start token that each row begins with.
        slide: where the context is full, drop the oldest token and read the rest again.

    Attributes:
        ids: for each row all ids so far, the prompt or the decoder's start token among them.
        new: for each row how many of them are new.
        limits: for each row how many more may come.
        pending: for each row the last ids, which the stepper has not read yet.
    """

    def __init__(
        self,
        stepper: Stepper,
        prompts: Sequence[Sequence[int]],
        rules: Rules,
        max_tokens: int,
        prefixes: Sequence[Sequence[int]] | None = None,
        slide: bool = False,
    ) -> None:
        check_prompts(stepper, prompts, slide)
        self.stepper, context = stepper, stepper.context
        self.slide = slide and context is not None
        if stepper.has_encoder:
            decoder_start_id = rules.decoder_start_id
            self.ids = [[decoder_start_id, *prefix] for prefix in prefixes or [()] * len(prompts)]
            rows = [RowStart(ids, source) for ids, source in zip(self.ids, prompts, strict=True)]
        else:
            self.ids = [list(prompt) for prompt in prompts]
            rows = [RowStart(ids[-context:] if self.slide and context else ids) for ids in self.ids]
        self.new = [0] * len(prompts)
        self.pending: list[list[int]] = [[] for _ in prompts]
        limit = None if self.slide else context
        self.limits = [max_tokens if limit is None else min(max_tokens, limit - len(ids)) for ids in self.ids]
        stepper.prefill(rows, max(self.limits, default=0))

    @property
    def logits(self) -> np.ndarray:
        """(B, V) float32: logits of each row's next token."""
        return as_array(self.stepper.logits)

    def step(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Go on with these rows, in this order and as often as they are named; each takes one more token."""
        self.keep(rows)
        self.write(tokens)
        self.compute()

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order and as often as they are named."""
        self.stepper.keep(rows)
        if list(rows) != list(range(len(self.ids))):
            self.ids = [list(self.ids[row]) for row in rows]
            self.pending = [list(self.pending[row]) for row in rows]
            self.new = [self.new[row] for row in rows]
            self.limits = [self.limits[row] for row in rows]

    def write(self, tokens: Sequence[int | None]) -> None:
        """Append a token to each row, none where it is None; the stepper reads them in :meth:`compute`."""
        for row, token in enumerate(tokens):
            if token is not None:
                self.ids[row].append(token)
                self.pending[row].append(token)
                self.new[row] += 1
                self.limits[row] -= 1

    def compute(self) -> None:
        """Let the stepper read what was written, of every row one token or more: ``logits`` are those after it."""
        pending, self.pending = self.pending, [[] for _ in self.ids]
        if not any(pending):
            return
        if any(len(tokens) != 1 for tokens in pending):
            self.stepper.append(pending)
            return
        full = [row for row, length in enumerate(self.stepper.lengths) if self.slide and length == self.stepper.context]
        if full:
            self._slide(full)
        else:
            self.stepper.step([token for (token,) in pending])

    def _slide(self, full: list[int]) -> None:
        """One more token where some rows have no room for it: those are read again without their oldest token."""
        others = [row for row in range(len(self.ids)) if row not in full]
        self.stepper.keep(others)
        if others:
            self.stepper.step([self.ids[row][-1] for row in others])
        context = self.stepper.context
        assert context is not None
        self.stepper.add([RowStart(self.ids[row][-context:]) for row in full], 0)
        order = [*others, *full]
        self.stepper.keep([order.index(row) for row in range(len(order))])


def check_prompts(stepper: Stepper, prompts: Sequence[Sequence[int]], slide: bool = False) -> None:
    """Refuse what cannot be continued.

    Raises:
        InputError: a prompt is empty or too long; an encoder-decoder is asked to slide.
    """
    has_encoder, context = stepper.has_encoder, stepper.context
    if slide and has_encoder:
        hint = "leave slide out: the answer of an encoder-decoder has a context of its own"
        raise InputError("the context of an encoder-decoder does not slide", "slide", hint)
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            raise InputError("the prompt is empty", f"prompt {number}", "give at least one token to continue from")
        # a decoder needs room for one more
        if context is not None and not slide and len(prompt) >= context + has_encoder:
            raise InputError(
                f"the prompt has {len(prompt)} tokens, the model's context holds {context}",
                f"prompt {number}",
                f"shorten it to fewer than {context + has_encoder} tokens",
            )
