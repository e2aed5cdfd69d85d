"""Speculative decoding: tokens are guessed and checked several at a time, and the text is that of greedy decoding.

Reading weights takes most of the time of a step, and computing a few tokens more costs little. So the next tokens are
guessed, the model computes the logits after each of them in one step, and as many guesses are kept as agree with the
token that it chooses itself; the KV cache is cut back to those. Only the guessing differs: from what followed the same
tokens earlier in the text (Saxena 2023, prompt lookup decoding), or by a smaller model (Leviathan et al. 2023; greedy
decoding is its case of temperature 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

from lmworks.base.errors import InputError
from lmworks.generate.decode import Steps, Token, check_prompts
from lmworks.generate.grammar_matcher import GrammarMatcher
from lmworks.generate.sampling import (
    MOST_GUESSES,
    Rules,
    SamplingSettings,
    allow_only,
    apply_rules,
    as_array,
    log_probabilities,
    pick,
)
from lmworks.generate.stepper import ExtensibleStepper, RowStart, Stepper

DRAFT_TOKENS = 5
"""Tokens that a draft model guesses at a time."""
LONGEST_MATCH, SHORTEST_MATCH = 4, 2  # tokens that must agree before what followed them is guessed


class Guesser(Protocol):
    """Something that guesses how a text goes on."""

    def guess(self, ids: Sequence[int]) -> list[int]:
        """The tokens that probably follow, few or none. Each text that it is given continues the one before."""


class PromptLookup:
    """Guesses what followed the last occurrence of the text's last tokens; the longest match decides.

    Args:
        count: tokens to guess.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._ends: dict[tuple[int, ...], int] = {}  # where the last occurrence of these tokens ends
        self._known = 0

    def guess(self, ids: Sequence[int]) -> list[int]:
        """See :class:`Guesser`."""
        sizes = range(LONGEST_MATCH, SHORTEST_MATCH - 1, -1)
        for end in range(self._known, len(ids)):
            for size in sizes:
                if size <= end:
                    self._ends[tuple(ids[end - size : end])] = end
        self._known = len(ids)
        for size in sizes:
            match = self._ends.get(tuple(ids[len(ids) - size :]))
            if match is not None:
                return list(ids[match : match + self._count])
        return []


class DraftModel:
    """Guesses what a smaller model would write.

    Args:
        stepper: of that model; its earlier rows are dropped.
        count: tokens to guess.
    """

    def __init__(self, stepper: ExtensibleStepper, count: int = DRAFT_TOKENS) -> None:
        self._stepper, self._count = stepper, count
        self._ids: list[int] = []  # in its KV cache
        self._certain = 0  # how many of them the text had; those behind were guessed
        stepper.prefill([])

    def guess(self, ids: Sequence[int]) -> list[int]:
        """See :class:`Guesser`. Nothing is guessed where the draft model's context is full."""
        stepper, context = self._stepper, self._stepper.context
        if context is not None and len(ids) + self._count > context:
            return []
        if not self._ids:
            stepper.prefill([RowStart(ids)])
            logits = as_array(stepper.logits)
        else:
            known = self._certain
            while known < min(len(self._ids), len(ids) - 1) and self._ids[known] == ids[known]:
                known += 1
            stepper.truncate(known)
            logits = as_array(stepper.extend(ids[known:]))
        guesses = [int(logits[-1].argmax())]
        while len(guesses) < self._count:
            guesses.append(int(as_array(stepper.extend(guesses[-1:]))[-1].argmax()))
        self._ids, self._certain = [*ids, *guesses[:-1]], len(ids)
        return guesses


def decode_speculatively(
    stepper: Stepper,
    prompt: Sequence[int],
    settings: SamplingSettings,
    end_ids: set[int],
    guesser: Guesser,
    rules: Rules | None = None,
    with_log_probabilities: bool = False,
    grammar: GrammarMatcher | None = None,
) -> Steps:
    """Yield, step by step, the tokens that :func:`lmworks.generate.decode.decode` yields for this prompt alone.

    Tokens that a grammar demands stand before those that are guessed, and are never wrong; a guess that the grammar
    does not allow is wrong as any other.

    Args:
        stepper: of a decoder. Its earlier rows are dropped.
        prompt: token ids.
        settings: greedy ones.
        end_ids: tokens that end a text.
        guesser: that has been given no text yet.
        rules: of generation_config.json.
        with_log_probabilities: give the log-probability of each token.
        grammar: a new matcher of what the text must look like.

    Raises:
        InputError: the prompt is empty or leaves no room in the context, decoding is not greedy, or the stepper
            cannot take tokens back; the grammar has no text that is short enough.
    """
    stepper = check_guesses(stepper, settings)
    check_prompts(stepper, [prompt])
    rules, ids, new = rules or Rules(), list(prompt), 0
    limit = settings.max_tokens if stepper.context is None else min(settings.max_tokens, stepper.context - len(ids))
    stepper.prefill([RowStart(ids)], limit)
    logits = as_array(stepper.logits)
    guesses: list[int] = []
    queue = [] if grammar is None else grammar.begin(limit)
    while True:
        for place in range(len(logits)):
            row = logits[place : place + 1]
            if not queue:
                scores = apply_rules(row, settings, rules, [ids], [new], [limit], end_ids)
                if grammar is not None:
                    scores = allow_only(scores, row, grammar.mask()[None])
                (token,) = pick(scores, settings, [], [ids])
                queue = [token] if grammar is None else grammar.accept(token, limit)
                if not queue:
                    return
            token = queue.pop(0)
            (likelihood,) = log_probabilities(row, [token]) if with_log_probabilities else [None]
            stopped = yield [Token(token, likelihood)]
            ended = grammar is not None and grammar.is_finished and not queue
            if token in end_ids or limit == 1 or stopped or ended:
                return
            ids.append(token)
            new, limit = new + 1, limit - 1
            if place < len(guesses) and token != guesses[place]:
                break
        stepper.truncate(len(ids) - 1)
        most = min(limit - 1, MOST_GUESSES)
        guesses = queue[:most] if len(queue) >= most else [*queue, *guesser.guess([*ids, *queue])][:most]
        # a draft model's embedding may have more rows than this model's
        guesses = list(takewhile(lambda guess: guess < stepper.vocab_size, guesses))
        logits = as_array(stepper.extend([ids[-1], *guesses]))


def check_guesses(stepper: Stepper, settings: SamplingSettings) -> ExtensibleStepper:
    """Check that next tokens may be guessed with a stepper and settings; the stepper.

    Raises:
        InputError: decoding is not greedy, or the stepper cannot take tokens back.
    """
    for name, allowed in (("temperature", 0.0), ("num_beams", 1)):
        if getattr(settings, name) != allowed:
            fault = "the next tokens are guessed in greedy decoding alone"
            raise InputError(fault, name, f"set {name} to {allowed:g}, or leave prompt_lookup and draft out")
    if settings.slide:
        hint = "set slide to false, or leave prompt_lookup and draft out"
        raise InputError("the context does not slide where the next tokens are guessed", "slide", hint)
    if not isinstance(stepper, ExtensibleStepper):
        hint = "leave prompt_lookup and draft out; in Python, prepare() the models"
        raise InputError("the next tokens are guessed with the native engine alone", "prompt_lookup, draft", hint)
    return stepper
