"""Logits -> the next token's id. Filters apply in the order that Hugging Face's generate uses.

Two things decide: what a person asks for (SamplingSettings), and what the publisher of a model demands of its texts
(Rules, from generation_config.json). Knows nothing of networks and tokenizers; computes with NumPy, whatever gave the
logits, so that the same seed draws the same text from each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from lmworks.base.errors import InputError
from lmworks.base.seeds import Seed
from lmworks.base.settings import Settings
from lmworks.generate.stepper import Logits

MOST_BEAMS = 64  # each has a KV cache of its own


UNLIKELY = np.float32(-1e20)
"""The logit of a token that a grammar allows and the model gives no probability."""

MOST_GUESSES = 16
"""Tokens that are guessed at a time. The native engine multiplies 32 or more otherwise than one (in tiles of AMX), and
a text could differ in a word."""


class SamplingSettings(Settings):
    """How the next token is chosen and when to stop. Temperature 0 is greedy."""

    max_tokens: int = Field(256, ge=1, description="Stop after this many new tokens.")
    temperature: float = Field(0.0, ge=0, description="0: the likeliest token; 1: the model's own distribution.")
    top_k: int = Field(0, ge=0, description="Draw from the k likeliest tokens only; 0: all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the fewest tokens whose probabilities reach p.")
    min_p: float = Field(
        0.0, ge=0, le=1, description="Drop tokens less likely than this fraction of the likeliest token's probability."
    )
    repetition_penalty: float = Field(1.0, gt=0, description="Above 1: tokens already in the text become less likely.")
    no_repeat_ngram_size: int = Field(0, ge=0, description="No n tokens in a row occur twice; 0: they may.")
    num_beams: int = Field(1, ge=1, le=MOST_BEAMS, description="Beam search that keeps so many texts; 1: none.")
    length_penalty: float = Field(
        1.0, description="Beams are judged by log p / length ** this: above 1, long ones win."
    )
    early_stopping: bool | Literal["never"] = Field(
        False, description="Beams: true ends with the first num_beams texts; never: only when none can get better."
    )
    seed: Seed = Field(0, description="The same seed draws the same text.")
    stop: list[str] = Field(default_factory=list, description="Stop before any of these strings.")

    prompt_lookup: int = Field(
        0,
        ge=0,
        le=MOST_GUESSES,
        description="Greedy decoding of one prompt: guess so many tokens from what followed the same words earlier, "
        "and check them at once. The text is the same; one that repeats its prompt comes sooner. 0: off.",
    )
    slide: bool | None = Field(
        None,
        description="Where the context is full: true drops the oldest tokens and goes on, false ends; none: true for "
        "a model that was trained here on windows of texts.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError("beam search (num_beams) draws nothing: set temperature to 0, or num_beams to 1")
        if self.num_beams > 1 and self.slide:
            raise ValueError("beam search (num_beams) does not slide: set slide to false, or num_beams to 1")
        if self.prompt_lookup and (self.temperature > 0 or self.num_beams > 1 or self.slide):
            raise ValueError(
                "prompt_lookup is for greedy decoding: set temperature to 0, num_beams to 1 and slide to false, or "
                "prompt_lookup to 0"
            )
        return self


@dataclass(frozen=True)
class Rules:
    """What the publisher of a model demands of every text, by the names of Hugging Face's generation config.

    Attributes:
        decoder_start_token_id: what the decoder of an encoder-decoder begins with.
        forced_bos_token_id: the first new token, whatever the logits say.
        forced_eos_token_id: the new token at the limit of max_tokens.
        min_new_tokens: new tokens before the text may end (from min_length, too).
        bad_words_ids: sequences of ids that must not be written (from suppress_tokens, too).
    """

    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    min_new_tokens: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, generation: Mapping[str, Any], encoder_decoder: bool = False) -> Rules:
        """The rules of a generation_config.json.

        Args:
            generation: its content.
            encoder_decoder: whether the model is one; lengths then count the decoder's start.
        """
        decoder_start = generation.get("decoder_start_token_id", generation.get("bos_token_id"))
        shortest = max(0, (generation.get("min_length") or 0) - 1) if encoder_decoder else 0
        banned = [
            *([token] for token in generation.get("suppress_tokens") or ()),
            *(generation.get("bad_words_ids") or ()),
        ]
        return cls(
            decoder_start_token_id=_single(decoder_start) if encoder_decoder else None,
            forced_bos_token_id=_single(generation.get("forced_bos_token_id")) if encoder_decoder else None,
            forced_eos_token_id=_single(generation.get("forced_eos_token_id")) if encoder_decoder else None,
            min_new_tokens=int(generation.get("min_new_tokens") or shortest),
            bad_words_ids=tuple(tuple(ids) for ids in banned),
        )

    @property
    def decoder_start_id(self) -> int:
        """What the decoder of an encoder-decoder begins with.

        Raises:
            InputError: nothing says it.
        """
        if self.decoder_start_token_id is None:
            raise InputError(
                "it is not said what the decoder begins with",
                "generation_config.json",
                'write there "decoder_start_token_id", as the model was trained',
            )
        return self.decoder_start_token_id


def published_beams(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The beam search that a generation_config.json asks for, as fields of SamplingSettings.

    Where it says nothing of beams there are four, as in Vaswani et al. 2017, section 6.1.
    """
    names = ("num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size", "repetition_penalty")
    values = {name: generation[name] for name in names if generation.get(name) is not None}
    most = generation.get("max_new_tokens") or (generation.get("max_length") or 0) - 1
    return {"num_beams": 4, **values, **({"max_tokens": most} if most > 0 else {})}


def as_array(logits: Logits) -> np.ndarray:
    """Logits of any stepper as a NumPy array, float32; on the CPU they are copied only from another data type."""
    if not isinstance(logits, np.ndarray):  # a torch tensor, on any device
        logits = logits.detach().float().cpu().numpy()
    return logits.astype(np.float32, copy=False)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the ``count`` largest of (n,) values, the largest first."""
    if count < len(values):
        places = np.sort(np.argpartition(values, len(values) - count)[len(values) - count :])
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")]


def log_probabilities(logits: np.ndarray, tokens: Sequence[int]) -> list[float]:
    """log p of one token for each row of (B, V) logits."""
    return log_softmax(logits)[np.arange(len(tokens)), list(tokens)].tolist()


def apply_rules(
    scores: np.ndarray,
    settings: SamplingSettings,
    rules: Rules,
    ids: Sequence[Sequence[int]],
    new: Sequence[int],
    limits: Sequence[int],
    end_ids: Iterable[int],
) -> np.ndarray:
    """Scores (B, V) with the tokens that may not come set to minus infinity.

    Args:
        scores: logits or log-probabilities.
        settings: of them no_repeat_ngram_size.
        rules: the publisher's.
        ids: for each row all ids so far.
        new: how many of them are new.
        limits: how many more new ones a row may get.
        end_ids: what ends a text.
    """
    size, forced_bos, forced_eos = settings.no_repeat_ngram_size, rules.forced_bos_token_id, rules.forced_eos_token_id
    if not (size or rules.bad_words_ids or rules.min_new_tokens) and forced_bos is None and forced_eos is None:
        return scores
    scores = scores.copy()
    for row, (text, count, left) in enumerate(zip(ids, new, limits, strict=True)):
        banned = _repeating(text, size) if size else []
        banned += [words[-1] for words in rules.bad_words_ids if _ends_with(text, words[:-1])]
        if count < rules.min_new_tokens:
            banned += end_ids
        scores[row, banned] = -np.inf
        forced = forced_bos if count == 0 and forced_bos is not None else forced_eos if left == 1 else None
        if forced is not None:
            scores[row] = -np.inf
            scores[row, forced] = 0.0
    return scores


def allow_only(scores: np.ndarray, logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Scores (B, V) with the tokens that a grammar does not allow set to minus infinity.

    Args:
        scores: what :func:`apply_rules` makes of the logits. Where a rule of the publisher leaves no allowed token, the
            grammar wins, and the row has its logits; not even a probability of 0 bans an allowed token then.
        logits: (B, V).
        allowed: (B, V) bool, at least one token a row.
    """
    masked = np.where(allowed, scores, np.float32(-np.inf))
    for row in np.flatnonzero(masked.max(-1) == -np.inf):
        masked[row] = np.where(allowed[row], np.maximum(logits[row], UNLIKELY), np.float32(-np.inf))
    return masked


def _ends_with(text: Sequence[int], ids: tuple[int, ...]) -> bool:
    return tuple(text[len(text) - len(ids) :]) == ids


def _repeating(text: Sequence[int], size: int) -> list[int]:
    """The ids that would complete a sequence of ``size`` ids which the text has already."""
    if len(text) < size:
        return []
    tail = list(text[len(text) - size + 1 :])
    return [text[end] for end in range(size - 1, len(text)) if list(text[end - size + 1 : end]) == tail]


def _single(token: int | Sequence[int] | None) -> int | None:
    return token if token is None or isinstance(token, int) else next(iter(token), None)


def distribution(logits: np.ndarray, settings: SamplingSettings, earlier: Sequence[Sequence[int]]) -> np.ndarray:
    """Probabilities (B, V) float32 that tokens are drawn from.

    Args:
        logits: (B, V).
        settings: temperature and filters; temperature 0 counts as 1 here.
        earlier: for each row the ids that the repetition penalty speaks of.
    """
    logits = penalize(logits, settings.repetition_penalty, earlier)
    if settings.temperature not in (0.0, 1.0):
        logits = logits / np.float32(settings.temperature)
    if 0 < settings.top_k < logits.shape[-1]:
        least = np.partition(logits, -settings.top_k, axis=-1)[:, -settings.top_k, None]
        logits = np.where(logits < least, -np.inf, logits)
    probabilities = softmax(logits)
    if settings.top_p < 1:
        for row in probabilities:
            row[_beyond(row, settings.top_p)] = 0.0
        probabilities /= probabilities.sum(-1, keepdims=True)
    if settings.min_p > 0:
        probabilities[probabilities < settings.min_p * probabilities.max(-1, keepdims=True)] = 0.0
        probabilities /= probabilities.sum(-1, keepdims=True)
    return probabilities


LIKELIEST = 1024
"""Tokens that are sorted first; where they do not reach top_p, all are."""


def _beyond(probabilities: np.ndarray, top_p: float) -> np.ndarray:
    """(V,) bool: the tokens outside the fewest likeliest ones whose sum reaches ``top_p``; the likeliest never is."""
    places = largest(probabilities, LIKELIEST)
    sums = probabilities[places].cumsum()
    if sums[-1] < top_p:
        places = largest(probabilities, len(probabilities))
        sums = probabilities[places].cumsum()
    # a token is kept while the sum before it is below top_p
    kept = places[sums - probabilities[places] < top_p]
    outside = np.ones(len(probabilities), bool)
    outside[kept] = False
    return outside


def penalize(logits: np.ndarray, penalty: float, earlier: Sequence[Sequence[int]]) -> np.ndarray:
    """Divide positive and multiply negative logits of earlier ids by the penalty (Keskar et al. 2019, CTRL)."""
    if penalty == 1.0:
        return logits
    logits = logits.copy()
    for row, ids in zip(logits, earlier, strict=True):
        used_ids = sorted(set(ids))
        scores = row[used_ids]
        row[used_ids] = np.where(scores > 0, scores / penalty, scores * penalty)
    return logits


def pick(
    logits: np.ndarray,
    settings: SamplingSettings,
    generators: Sequence[np.random.Generator],
    earlier: Sequence[Sequence[int]],
) -> list[int]:
    """One id a row of (B, V) logits. Each row has its own generator, so a batch draws what each would alone; at
    temperature 0 nothing is drawn, and they are not used."""
    if settings.temperature == 0:
        return penalize(logits, settings.repetition_penalty, earlier).argmax(-1).tolist()
    totals = distribution(logits, settings, earlier).cumsum(-1, dtype=np.float64)
    tokens = []
    for row, generator in zip(totals, generators, strict=True):
        draw = generator.random() * row[-1]
        last = np.searchsorted(row, row[-1])  # the last token with a probability, where rounding reaches the total
        tokens.append(int(min(np.searchsorted(row, draw, side="right"), last)))
    return tokens
