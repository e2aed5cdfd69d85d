"""New tokens of a model: what its tokenizer calls them, and how many rows its tables need for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lmworks.text.tokenizer import Tokenizer


class NewTokens(NamedTuple):
    """Tokens that were added to a tokenizer.

    Attributes:
        ids: ascending: theirs, and those of all other tokens that have no row in the model yet.
        vocab_size: rows that the model needs.
        notes: for the user: which were added, and which were there.
    """

    ids: list[int]
    vocab_size: int
    notes: list[str]


def add_tokens(tokenizer: Tokenizer, tokens: Sequence[str], vocab_size: int) -> NewTokens:
    """Add tokens to a tokenizer whose model has ``vocab_size`` rows; a token that is there already keeps its id.

    A model may have more rows than its tokenizer has ids; new tokens take these first.
    """
    size = tokenizer.highest_id + 1
    ids = tokenizer.add_tokens(tokens)
    added = [f"{token} ({index})" for token, index in zip(tokens, ids, strict=True) if index >= size]
    known = [f"{token} ({index})" for token, index in zip(tokens, ids, strict=True) if index < size]
    notes = [f"tokens added to the tokenizer: {', '.join(added)}"] if added else []
    notes += [f"in the tokenizer already, and their rows trained: {', '.join(known)}"] if known else []
    if max(ids) >= vocab_size:
        ids += range(vocab_size, tokenizer.highest_id + 1)
        vocab_size = tokenizer.highest_id + 1
        tokenizer.rows = None
    return NewTokens(sorted(set(ids)), vocab_size, notes)
