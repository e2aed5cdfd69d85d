"""Decoding: prompts as ids in, new ids out, one for each row at each step. Knows nothing of texts and tokenizers.

A decoder continues its prompts; an encoder-decoder answers them, its decoder beginning with the start token. The
logits come from a Stepper, so a batch gives what each prompt would give alone. Rows that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np

from lmworks.base.errors import InputError
from lmworks.generate.sampling import Rules, SamplingSettings, apply_rules, as_array, log_probabilities, pick
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
) -> Steps:
    """Yield, step by step, one new token for each prompt; None for those that have ended.

    The token that ends a row is yielded too. A row also ends after ``max_tokens``, and at the end of the context
    unless ``settings.slide``. A consumer may end rows early by sending a set of row numbers.

    Args:
        stepper: of a decoder, or of an encoder-decoder: then the prompts are its sources. Its earlier rows are dropped.
        prompts: token ids.
        settings: without beams (generate/beam.py has those).
        end_ids: what ends a text.
        rules: what the model's publisher demands; an encoder-decoder needs its start token.
        with_log_probabilities: give the log-probability of each token.

    Raises:
        InputError: a prompt is empty or leaves no room in the context; there is nothing to slide.
    """
    rules = rules or Rules()
    generators = [np.random.default_rng(settings.seed) for _ in prompts]
    alive = list(range(len(prompts)))
    rows = Sequences(stepper, prompts, rules, settings.max_tokens, slide=bool(settings.slide))
    while alive:
        logits = rows.logits
        scores = apply_rules(logits, settings, rules, rows.ids, rows.new, rows.limits, end_ids)
        tokens = pick(scores, settings, [generators[row] for row in alive], rows.ids)
        likelihoods = log_probabilities(logits, tokens) if with_log_probabilities else [None] * len(tokens)
        step: list[Token | None] = [None] * len(prompts)
        for row, token in zip(alive, map(Token, tokens, likelihoods), strict=True):
            step[row] = token
        stopped = (yield step) or set()
        going_on = [
            place
            for place, row in enumerate(alive)
            if tokens[place] not in end_ids and rows.limits[place] > 1 and row not in stopped
        ]
        alive = [alive[place] for place in going_on]
        if alive:
            rows.step(going_on, [tokens[place] for place in going_on])


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
        limit = None if self.slide else context
        self.limits = [max_tokens if limit is None else min(max_tokens, limit - len(ids)) for ids in self.ids]
        stepper.prefill(rows, max(self.limits, default=0))

    @property
    def logits(self) -> np.ndarray:
        """(B, V) float32: logits of each row's next token."""
        return as_array(self.stepper.logits)

    def step(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Go on with these rows, in this order and as often as they are named; each takes one more token."""
        self.stepper.keep(rows)
        if list(rows) != list(range(len(self.ids))):
            self.ids = [list(self.ids[row]) for row in rows]
        for ids, token in zip(self.ids, tokens, strict=True):
            ids.append(token)
        self.new = [self.new[row] + 1 for row in rows]
        self.limits = [self.limits[row] - 1 for row in rows]
        full = [row for row, length in enumerate(self.stepper.lengths) if self.slide and length == self.stepper.context]
        if full:
            self._slide(full)
        else:
            self.stepper.step(tokens)

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
