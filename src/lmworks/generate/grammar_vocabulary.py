"""A tokenizer's vocabulary as llguidance reads it: the bytes of each token. Built once for a tokenizer and shared."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import tokenizers

from lmworks.base.errors import InputError
from lmworks.generate.grammar import Grammar, library
from lmworks.text.tokenizer import Tokenizer
from lmworks.text.tokenizer_folder import ROLES

MOST_COMPILED = 32
"""Compiled grammars that are kept for a vocabulary."""
LONGEST_ENDING = 1024
"""Tokens within which an ending is looked for."""
SPACED = ("WordPiece", "BPEDecoder", "CTC")
"""Decoders that put spaces between tokens."""
BRACKETS, DIGITS = b"}])", b"0123456789"
QUOTES = (b'"', b"'")


class Vocabulary:
    """The tokens of a tokenizer, for grammars.

    Args:
        tokenizer: whose tokens are pieces of text: byte-level, SentencePiece, characters.

    Attributes:
        size: number of ids.
        end_ids: what ends a text.

    Raises:
        InputError: the tokenizer puts spaces between its tokens; llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        _check_joins(tokenizer)
        tokens = _TokenBytes(tokenizer)
        self.native = library().LLTokenizer(tokens)
        self.size, self.end_ids = len(tokens.tokens), frozenset(tokenizer.end_ids)
        self._end_id = tokens.eos_token_id
        self._ends = np.array(sorted(self.end_ids), np.int64)
        self._closing = _ClosingTokens(tokens.tokens, set(tokens.special_token_ids))
        self._compiled: OrderedDict[Grammar, tuple[Any, list[int] | None]] = OrderedDict()
        self._lock = Lock()

    def start(self, grammar: Grammar) -> tuple[Any, list[int] | None]:
        """A new LLMatcher of a grammar, at its beginning, and an ending from there (:meth:`ending`).

        Raises:
            InputError: the grammar cannot be compiled.
        """
        with self._lock:
            known = self._compiled.get(grammar)
        if known is None:  # others need not wait so long
            matcher = grammar.compiled(self.native)
            known = matcher, self.ending(matcher, LONGEST_ENDING)
        with self._lock:
            self._compiled[grammar] = known
            self._compiled.move_to_end(grammar)
            if len(self._compiled) > MOST_COMPILED:
                self._compiled.popitem(last=False)
        matcher, ending = known
        return matcher.deep_copy(), ending

    def mask(self, matcher: Any) -> np.ndarray:
        """(size,) bool: the tokens that may come next."""
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        mask = np.unpackbits(bits, count=self.size, bitorder="little").view(bool)
        if self._end_id is not None and mask[self._end_id]:
            mask[self._ends] = True
        return mask

    def ending(self, matcher: Any, left: int, known: Sequence[int] = ()) -> list[int] | None:
        """Tokens that soon end the text, not always the fewest. None: more than ``left`` are needed, or none are found.

        What closes something comes first, then what has just become possible, since other tokens may go on for ever.

        Args:
            matcher: stays as it is.
            left: how many tokens there may be.
            known: an ending from an earlier place of the text, of which the last part mostly is one of here, too.
        """
        matcher, known_ids = matcher.deep_copy(), np.array(known, np.int64)
        ending: list[int] = []
        before: np.ndarray | None = None
        while not matcher.is_accepting():
            tokens = matcher.compute_ff_tokens()
            if not tokens:
                mask = self.mask(matcher)
                mask[self._ends] = False
                rest = _rest_of(known_ids, matcher, mask)
                if rest is not None:
                    ending += rest
                    break
                token = self._next_to_end(matcher, mask, before)
                if token is None:
                    return None
                tokens, before = [token], mask
            ending += tokens
            if len(ending) > left or not matcher.consume_tokens(tokens):
                return None
        return ending if len(ending) <= left else None

    def _next_to_end(self, matcher: Any, mask: np.ndarray, before: np.ndarray | None) -> int | None:
        """The allowed token that soonest ends a text.

        Args:
            matcher: at this place.
            mask: (size,) bool, what is allowed.
            before: the same one step earlier.
        """
        closing, letter = self._closing, self._closing.letter
        # where any letter may come, a bracket is a character like others, and a quote is none if it ends that
        if letter is not None and mask[letter]:
            for quotes in closing.after_text:
                token = _first(quotes, mask)
                if token is None:
                    continue
                ahead = matcher.deep_copy()
                if ahead.consume_token(token) and (ahead.is_accepting() or not self.mask(ahead)[letter]):
                    return token
        elif (token := _first(closing.structural, mask)) is not None:
            return token
        for possible in (mask & ~before, mask) if before is not None else (mask,):
            if (token := _first(closing.digits, possible)) is not None:
                return token
            if possible.any():
                return int(possible.argmax())
        return None


class _ClosingTokens:
    """Tokens of closing brackets, quotes and digits, by id, those that close most first.

    Attributes:
        after_text: those that begin with a quote: double ones, single ones.
        structural: brackets, then quotes alone, which open and close an empty text, then a comma, which ends a number.
        digits: single ones.
        letter: one that stands for all; None: there is none.
    """

    def __init__(self, tokens: Sequence[bytes], special: set[int]) -> None:
        def of(may_begin: bytes, may_follow: bytes) -> np.ndarray:
            numbers = [
                number
                for number, token in enumerate(tokens)
                if token and token[0] in may_begin and not token[1:].strip(may_follow) and number not in special
            ]
            return np.array(sorted(numbers, key=lambda number: (-len(tokens[number]), number)), np.int64)

        self.after_text = [of(quote, BRACKETS) for quote in QUOTES]
        quotes = [of(quote, quote) for quote in QUOTES]
        self.structural = np.concatenate([of(BRACKETS, BRACKETS), *quotes, of(b",", b"")])
        self.digits = of(DIGITS, b"")
        self.letter = next((number for number, token in enumerate(tokens) if token == b"z"), None)


def _first(tokens: np.ndarray, mask: np.ndarray) -> int | None:
    """The first of some tokens that is allowed."""
    allowed = tokens[mask[tokens]]
    return int(allowed[0]) if len(allowed) else None


def _rest_of(known: np.ndarray, matcher: Any, mask: np.ndarray) -> list[int] | None:
    """The longest last part of an ending that ends the text from here; None: none does. The matcher is left there."""
    for place in np.flatnonzero(mask[known]):
        rest = known[place:].tolist()
        count = matcher.try_consume_tokens(rest)
        if count == len(rest) and matcher.is_accepting():
            return rest
        matcher.rollback(count)
    return None


class _TokenBytes:
    """What llguidance asks of a tokenizer: the bytes of its tokens, and the ids of a text within another."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokens = [tokenizer.token_bytes(number) for number in range(tokenizer.highest_id + 1)]
        roles = {getattr(tokenizer, f"{role}_id") for role in ROLES} - {None}
        self.special_token_ids = sorted({*tokenizer.specials.values(), *tokenizer.end_ids, *roles})
        self.bos_token_id = tokenizer.bos_id
        first = min(tokenizer.end_ids, default=None)
        self.eos_token_id = tokenizer.eos_id if tokenizer.eos_id is not None else first
        self._core = tokenizer.core_after("e")
        self._special = set(self.special_token_ids)

    def __call__(self, text: str) -> list[int]:
        ids = self._core.encode(text, add_special_tokens=False).ids
        if self._special.isdisjoint(ids):
            return ids
        # the name of a special token, written out in a text that the grammar demands, is text
        core = tokenizers.Tokenizer.from_str(self._core.to_str())
        core.encode_special_tokens = True
        self._core = core
        return core.encode(text, add_special_tokens=False).ids


def _check_joins(tokenizer: Tokenizer) -> None:
    decoder = tokenizer.core.decoder
    state = decoder.__getstate__().decode() if decoder is not None else ""
    if not state or any(f'"{name}"' in state for name in SPACED):
        fault = "the tokenizer puts spaces between its tokens, so no grammar can be kept to"
        raise InputError(fault, "grammar", "take a model with a byte-level or SentencePiece tokenizer")


_BUILT: WeakKeyDictionary[Tokenizer, Vocabulary] = WeakKeyDictionary()
_LOCK = Lock()


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer; built anew where tokens were added since.

    Raises:
        InputError: as :class:`Vocabulary`.
    """
    with _LOCK:
        known = _BUILT.get(tokenizer)
        if known is None or (known.size, known.end_ids) != (tokenizer.highest_id + 1, tokenizer.end_ids):
            known = _BUILT[tokenizer] = Vocabulary(tokenizer)
        return known
