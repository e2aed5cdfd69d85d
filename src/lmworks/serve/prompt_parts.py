"""The parts in which prompts are read, and how much of an earlier text may stand for the beginning of one.

The native engine gives the same bits however many tokens it computes at a time, with one exception: where the processor
has tiles for matrices (AMX), parts of FEWEST_TILED tokens or more are multiplied in other sums. A prompt that is read
alone is cut into parts of WHOLE_PART tokens from its beginning on, so the length of a prompt decides which of its
tokens are in such a part. Here they are for each token the same as there: an answer depends neither on other requests
nor on what is left of earlier ones. Pure functions.
"""

from __future__ import annotations

from lmworks.generate.prefix_length import SHORTEST

WHOLE_PART = 256  # STEP_TOKENS of native/engine.hpp
FEWEST_TILED = 32  # FEWEST_TILE_VECTORS of native/engine_tiles.inl
SMALLEST_LIMIT = 2 * FEWEST_TILED
"""The least that may be asked of :func:`part_end`."""


def tiled_length(length: int) -> int:
    """How many of the first tokens of a prompt are in parts of FEWEST_TILED or more, where it is read alone."""
    rest = length % WHOLE_PART
    return length if rest >= FEWEST_TILED else length - rest


def part_end(begin: int, length: int, limit: int) -> int:
    """Where the next part of a prompt ends.

    Args:
        begin: tokens that are read already: 0, the end of an earlier part, or what :func:`reusable_length` gave.
        length: of the prompt.
        limit: tokens of a part, SMALLEST_LIMIT to WHOLE_PART.
    """
    tiled = tiled_length(length)
    if begin >= tiled:
        return length
    end = min(begin + limit, tiled)
    return end if end == tiled or tiled - end >= FEWEST_TILED else tiled - FEWEST_TILED


def reusable_length(shared: int, tiled: int, length: int) -> int:
    """How many tokens of an earlier text may be taken over as the beginning of a prompt; 0 where it is not worth it.

    Args:
        shared: tokens with which both begin.
        tiled: of the earlier text: its first tokens that were read in parts of FEWEST_TILED or more.
        length: of the prompt, whose last token is always read: the logits after it are needed.
    """
    most = min(shared, tiled, tiled_length(length), length - 1)
    if 0 < tiled_length(length) - most < FEWEST_TILED:
        most = tiled_length(length) - FEWEST_TILED
    return most if most >= SHORTEST else 0
