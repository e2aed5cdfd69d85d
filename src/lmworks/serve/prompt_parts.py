"""The parts in which prompts are read, and how much of an earlier text may stand for the beginning of one.

The native engine gives the same bits however many tokens it computes at a time, with one exception: where the processor
has tiles for matrices (AMX), parts of FEWEST_TILED tokens or more are multiplied in other sums (where weights are
ternary, of FEWEST_TERNARY or more). A prompt that is read
alone is cut into parts of WHOLE_PART tokens from its beginning on, so the length of a prompt decides which of its
tokens are in such a part. Here they are for each token the same as there: an answer depends neither on other requests
nor on what is left of earlier ones. Pure functions.
"""

from __future__ import annotations

from lmworks.generate.prefix_length import SHORTEST

WHOLE_PART = 256  # STEP_TOKENS of native/engine.hpp
FEWEST_TILED, FEWEST_TERNARY = 32, 64  # fewest_tile_vectors of native/engine_tiles.inl
SMALLEST_LIMIT = 2 * FEWEST_TILED
"""Tokens of prompts that are read between two tokens of answers: enough for two parts."""


def tiled_length(length: int, fewest: int = FEWEST_TILED) -> int:
    """How many of the first tokens of a prompt are in parts of ``fewest`` or more, where it is read alone."""
    rest = length % WHOLE_PART
    return length if rest >= fewest else length - rest


def part_end(begin: int, length: int, limit: int, fewest: int = FEWEST_TILED) -> int:
    """Where the next part of a prompt ends.

    Args:
        begin: tokens that are read already: 0, the end of an earlier part, or what :func:`reusable_length` gave.
        length: of the prompt.
        limit: tokens of a part, twice ``fewest`` to WHOLE_PART.
        fewest: tokens from which on a part is multiplied in tiles; fewer tokens at the end are read as one part.
    """
    tiled = tiled_length(length, fewest)
    if begin >= tiled:
        return length
    end = min(begin + limit, tiled)
    return end if end == tiled or tiled - end >= fewest else tiled - fewest


def reusable_length(shared: int, tiled: int, length: int, fewest: int = FEWEST_TILED) -> int:
    """How many tokens of an earlier text may be taken over as the beginning of a prompt; 0 where it is not worth it.

    Args:
        shared: tokens with which both begin.
        tiled: of the earlier text: its first tokens that were read in parts of ``fewest`` or more.
        length: of the prompt, whose last token is always read: the logits after it are needed.
    """
    whole = tiled_length(length, fewest)
    most = min(shared, tiled, whole, length - 1)
    if 0 < whole - most < fewest:
        most = whole - fewest
    return most if most >= SHORTEST else 0
