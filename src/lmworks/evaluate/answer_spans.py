"""The best span of a context from the scores of its tokens as start and as end, window by window.

A span's score is that of its start plus that of its end; of a span in several windows the greatest counts. "No answer"
has the score of the first token ([CLS]) as start and end, the least of all windows (Devlin et al. 2019, section 4.3).
Knows no model and no text. Shapes: T tokens of the context, W tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MAX_ANSWER_TOKENS = 30
"""Tokens of the longest answer; the published recipe's number."""
STRIDE = 128
"""Tokens that two consecutive windows over a context share; the published recipe's number."""


class BestSpan(NamedTuple):
    """The best span of a context.

    Attributes:
        first, last: its tokens, both inside.
        probability: of it among all spans, and "no answer" where that is an answer too.
        null_margin: score of "no answer" minus that of the span.
        null_probability: of "no answer"; None where every question is answered.
    """

    first: int
    last: int
    probability: float
    null_margin: float
    null_probability: float | None


def best_span(windows: Sequence[tuple[int, np.ndarray]], length: int, most: int, has_null: bool = False) -> BestSpan:
    """The span with the greatest score.

    Args:
        windows: where each begins in the context, and (1 + W, 2) scores as start and as end of its first token and of
            its tokens of the context.
        length: T.
        most: tokens of the longest span.
        has_null: whether "no answer" is possible too.
    """
    scores = np.full((length, min(most, length)), -np.inf)  # by first token and number of tokens - 1
    null = np.inf
    for begin, logits in windows:
        values = logits.astype(np.float64)
        null = min(null, float(values[0].sum()))
        starts, ends = values[1:, 0], values[1:, 1]
        count = len(starts)
        for more in range(min(scores.shape[1], count)):
            part = scores[begin : begin + count - more, more]
            np.maximum(part, starts[: count - more] + ends[more:], out=part)
    first, more = divmod(int(scores.argmax()), scores.shape[1])
    best = float(scores[first, more])
    highest = max(best, null) if has_null else best
    total = float(np.exp(scores - highest).sum()) + (float(np.exp(null - highest)) if has_null else 0.0)
    null_probability = float(np.exp(null - highest)) / total if has_null else None
    return BestSpan(first, first + more, float(np.exp(best - highest)) / total, null - best, null_probability)
