"""Texts as windows of one context at most, in which each token is scored once; scores of texts. Imports no torch.

Which tokens of a text are scored: with a tokenizer that begins texts with a BOS token, all of them. Without one nothing
predicts the first token: it is not scored, and its bytes are not counted either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import NATS_PER_BIT
from lmworks.data.batch import Example
from lmworks.text.tokenizer import Tokenizer

Ids = Sequence[int]


@dataclass(frozen=True)
class Score:
    """How likely one text is.

    Attributes:
        nats: -log p of its scored tokens, summed; natural logarithm.
        tokens: how many were scored.
        bytes: UTF-8 bytes of what was scored.
        signature: what computed it, and the formats of the weights, such as "backend:native|weights:Q4_1+Q8_0"; of a
            text in several windows their size and stride too; empty where nobody says it.
        characters: code points of what was scored.
    """

    nats: float
    tokens: int
    bytes: int
    signature: str = ""
    characters: int = 0

    @property
    def bits_per_byte(self) -> float:
        """Comparable across tokenizers; NaN where nothing could be scored."""
        return bits_per_byte(self.nats, self.bytes)

    @property
    def bits_per_character(self) -> float:
        """Comparable across tokenizers and encodings; NaN where nothing could be scored."""
        return bits_per_byte(self.nats, self.characters)

    @property
    def perplexity(self) -> float:
        """exp of the mean nats a token, comparable with the same tokenizer alone; NaN where nothing could be scored."""
        return perplexity(self.nats, self.tokens)


@dataclass(frozen=True)
class ChoiceScores:
    """How likely the choices after one prompt are.

    Attributes:
        log_probabilities: (n,) float64, nats, at most 0; sums over the tokens of a choice, not divided by its length.
        is_greedy: (n,) bool, whether a choice is what the model writes where it always takes the likeliest token.
    """

    log_probabilities: np.ndarray
    is_greedy: np.ndarray

    @classmethod
    def of(cls, count: int) -> ChoiceScores:
        """Of choices no token of which is scored yet."""
        return cls(np.zeros(count), np.ones(count, dtype=bool))

    def add(self, place: int, log_probability: float, is_greedy: bool) -> None:
        """Count further tokens of a choice."""
        self.log_probabilities[place] += log_probability
        self.is_greedy[place] &= is_greedy


@dataclass(frozen=True)
class TextWindows:
    """A text that is to be scored.

    Attributes:
        windows: its parts, of which the tokens with loss are scored; none where nothing can be.
        tokens: how many are scored, in all of them.
        bytes: UTF-8 bytes of what is scored.
        characters: code points of what is scored.
        signature: "|context:2048|stride:1024" of a text in several windows; else empty.
    """

    windows: list[Example]
    tokens: int
    bytes: int
    characters: int
    signature: str


def signature_of(backend: str, formats: Iterable[str], kv_cache: str | None = None) -> str:
    """What a score says of its computation.

    Args:
        backend: native, torch or counts.
        formats: of the weights, such as float32 or Q4_1.
        kv_cache: the precision of keys and values, where somebody chose it.
    """
    chosen = f"|kv_cache:{kv_cache}" if kv_cache else ""
    return f"backend:{backend}|weights:{'+'.join(formats)}{chosen}"


def bits_per_byte(nats: float, size: int) -> float:
    """Nats of a text of so many bytes, or other units, as bits for each: comparable across tokenizers; NaN where
    nothing was scored."""
    return nats / NATS_PER_BIT / size if size else math.nan


def perplexity(nats: float, tokens: int) -> float:
    """exp of the mean nats a token; infinite where no number holds it, NaN where nothing was scored."""
    try:
        return math.exp(nats / tokens) if tokens else math.nan
    except OverflowError:
        return math.inf


def windows_of(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    longest: int,
    context: int | None = None,
    stride: int | None = None,
) -> list[TextWindows]:
    """The windows of each text; after the first window of a text every token sees ``context - stride`` tokens or more.

    Args:
        texts: of any length.
        tokenizer: of the model.
        longest: tokens that the model reads at most.
        context: tokens of a window; None: as many as the model reads.
        stride: tokens by which windows advance; None: half a window. A smaller one costs more and shows each token more
            of the text before it; as large as the window, its first token sees nothing but the opening tokens.

    Raises:
        InputError: the model does not read as many tokens, or the stride is none.
    """
    if context is not None and not 2 <= context <= longest:
        raise InputError(f"a window of {context} tokens", "--context", f"from 2 to {longest}, as the model reads")
    context = longest if context is None else context
    if stride is not None and not 1 <= stride < context:
        fault = f"windows of {context} tokens that advance by {stride}"
        raise InputError(fault, "--stride", f"from 1 to {context - 1}")
    stride = context - context // 2 if stride is None else stride
    pairs = zip(texts, tokenizer.spans(texts), strict=True)
    return [_windows(ids, begins, text, tokenizer, context, stride) for text, (ids, begins) in pairs]


def scores_of(texts: Sequence[TextWindows], nats: Iterable[float], computed: str = "") -> list[Score]:
    """The score of each text.

    Args:
        texts: as :func:`windows_of` gives them.
        nats: of the scored tokens of each window, one text after the other.
        computed: what computes them (:func:`signature_of`).
    """
    each = iter(nats)
    return [
        Score(
            sum(float(next(each)) for _ in text.windows),
            text.tokens,
            text.bytes,
            computed + text.signature if computed else "",
            text.characters,
        )
        for text in texts
    ]


def check_choices(prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]], context: int) -> None:
    """Refuse what has no likelihood.

    Args:
        prompts: token ids of each prompt.
        choices: for each prompt the token ids of its choices.
        context: tokens that the model reads at a time; the last token of a choice is not read.

    Raises:
        InputError: a prompt or a choice has no token, or what is read of both is longer than the context.
    """
    for number, (prompt, answers) in enumerate(zip(prompts, choices, strict=True), 1):
        if not prompt or not answers or not all(answers):
            fault = "a prompt or a choice without tokens has no likelihood"
            raise InputError(fault, f"prompt {number}", "give it, and each of its choices, at least one token")
        length = len(prompt) + max(map(len, answers))
        if length > context + 1:
            fault = f"{length} tokens with its choice; the context is {context}"
            raise InputError(fault, f"prompt {number}", "shorten the prompt")


def _windows(
    ids: np.ndarray, begins: np.ndarray, text: str, tokenizer: Tokenizer, context: int, stride: int
) -> TextWindows:
    tokens = np.array([*tokenizer.opening, *ids], dtype=np.int32)
    first = max(len(tokenizer.opening), 1)
    if len(tokens) <= first:
        return TextWindows([], 0, 0, 0, "")
    windows, scored = [], first
    while scored < len(tokens):
        begin = 0 if scored == first else scored - (context - stride)
        end = min(begin + context, len(tokens))
        windows.append(Example(tokens[begin:end], np.arange(begin, end) >= scored))
        scored = end
    unscored = begins[first - len(tokenizer.opening)]  # the character at which scoring begins
    size = len(text[unscored:].encode("utf-8", errors="replace"))
    signature = f"|context:{context}|stride:{stride}" if len(windows) > 1 else ""
    return TextWindows(windows, len(tokens) - first, size, len(text) - int(unscored), signature)
