"""A grammar along one text: which tokens may come next, which must, and how the text still ends within its limit."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.generate.grammar import Grammar
from lmworks.generate.grammar_vocabulary import LONGEST_ENDING, Vocabulary, vocabulary_of
from lmworks.text.tokenizer import Tokenizer


class GrammarMatcher:
    """The state of a grammar after the tokens of a text.

    A text that is cut at its limit is rarely valid, as JSON without its last bracket. So after each token an ending is
    known that fits into the tokens that are left; where the model's next token would leave none, the text takes that
    ending instead. Where none is found at the beginning, as of some regular expressions, a text may be cut.

    Args:
        matcher: llguidance's LLMatcher, at the beginning; no other text uses it.
        ending: tokens that soon end a text from there; None: none were found.
        vocabulary: of the model's tokenizer.
        vocab_size: V, the number of the model's logits.
        place: of the grammar, for errors.

    Attributes:
        is_finished: whether nothing can follow what was accepted.
        is_shortened: whether it was ended because of the limit.
    """

    def __init__(
        self, matcher: Any, ending: list[int] | None, vocabulary: Vocabulary, vocab_size: int, place: str = "grammar"
    ) -> None:
        self._matcher, self._vocabulary, self._vocab_size, self._place = matcher, vocabulary, vocab_size, place
        self._ending = ending
        self.is_finished = self.is_shortened = False

    def begin(self, left: int) -> list[int]:
        """The tokens that every text begins with.

        Args:
            left: how many tokens the text may have.

        Raises:
            InputError: the limit leaves no room for a text of this grammar.
        """
        ending = self._ending
        if ending is not None and len(ending) > left:
            fault = f"no text of the grammar was found that ends within {left} tokens: one takes {len(ending)}"
            hint = f"set max_tokens to {len(ending)} or more, and leave as much room for them in the context"
            raise InputError(fault, "max_tokens", hint)
        forced = self._forced(self._matcher)
        self._ending = None if ending is None else ending[len(forced) :]
        self.is_finished = self._matcher.is_stopped() and len(forced) <= left
        return forced

    def mask(self) -> np.ndarray:
        """(V,) bool: the tokens that may come next, one at least.

        Raises:
            InputError: the model has no token that may, or the grammar passes llguidance's limits here.
        """
        mask = self._vocabulary.mask(self._matcher)
        if len(mask) != self._vocab_size:
            whole, count = np.zeros(self._vocab_size, bool), min(len(mask), self._vocab_size)
            whole[:count] = mask[:count]
            mask = whole
        if self._matcher.is_error() or not mask.any():
            raise self._stuck(self._matcher)
        return mask

    def accept(self, token: int, left: int) -> list[int]:
        """Go on with a token that :meth:`mask` allows.

        Args:
            token: what the model chose.
            left: how many tokens may still come, this one among them.

        Returns:
            What the text goes on with: the token and those that must follow it; or, where that would leave no room for
            an ending, an ending, which may be empty.

        Raises:
            InputError: the grammar passes llguidance's limits here.
        """
        if token in self._vocabulary.end_ids:
            self.is_finished = True
            return [token]
        matcher = self._matcher
        if not matcher.consume_token(token):
            raise self._stuck(matcher)
        tokens = [token, *self._forced(matcher)]
        if matcher.is_error():
            raise self._stuck(matcher)
        if self._ending is not None:
            ending = self._ending_after(tokens, left - len(tokens))
            if ending is None:  # the text ends here, so nobody asks the matcher any more
                self.is_finished = self.is_shortened = True
                return self._ending
            self._ending = ending
        self.is_finished = matcher.is_stopped() and len(tokens) <= left
        return tokens

    def _ending_after(self, tokens: list[int], left: int) -> list[int] | None:
        """An ending of at most ``left`` tokens after these; mostly the rest of the one known before them."""
        known = self._ending or []
        if left < 0:
            return None
        if known[: len(tokens)] == tokens:
            return known[len(tokens) :]
        return self._vocabulary.ending(self._matcher, min(left, LONGEST_ENDING), known)

    def _forced(self, matcher: Any) -> list[int]:
        """Lets a matcher go on with the tokens that alone may follow, as far as the model has logits for them."""
        tokens = matcher.compute_ff_tokens()
        known = next((place for place, token in enumerate(tokens) if token >= self._vocab_size), len(tokens))
        return tokens[: matcher.try_consume_tokens(tokens[:known])] if known else []

    def _stuck(self, matcher: Any) -> InputError:
        if matcher.is_error():
            fault = f"the grammar is too complex for this text: {matcher.get_error().partition(chr(10))[0]}"
            return InputError(fault, self._place, "write it with fewer alternatives, and without nested repetitions")
        fault = "the model has no token by which the text can go on as the grammar demands"
        return InputError(fault, self._place, "take a model whose tokenizer can write every character of the grammar")


class CompiledGrammar:
    """A grammar compiled for a model, which makes a matcher for each text. Threads may share it, not a matcher.

    Args:
        grammar: what texts must look like.
        tokenizer: of the model.
        vocab_size: V, the number of the model's logits.

    Raises:
        InputError: the grammar cannot be compiled, llguidance is not installed, or the tokenizer does not suit.
    """

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._vocabulary = vocabulary_of(tokenizer)
        self._beginning, self._ending = self._vocabulary.start(grammar)
        self._vocab_size, self._place = vocab_size, grammar.place

    def matcher(self) -> GrammarMatcher:
        """A matcher of a new text."""
        beginning = self._beginning.deep_copy()
        return GrammarMatcher(beginning, self._ending, self._vocabulary, self._vocab_size, self._place)


def matchers_of(grammar: Grammar | None, tokenizer: Tokenizer, vocab_size: int, count: int) -> list[GrammarMatcher]:
    """A matcher for each of several texts of a grammar; none without a grammar. Raises as :class:`CompiledGrammar`."""
    if grammar is None:
        return []
    compiled = CompiledGrammar(grammar, tokenizer, vocab_size)
    return [compiled.matcher() for _ in range(count)]
