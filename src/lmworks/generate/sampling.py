"""Logits -> the next token's id. Filters apply in the order that Hugging Face's generate uses.

Two things decide: what a person asks for (SamplingSettings), and what the publisher of a model demands of its texts
(Rules, from generation_config.json). Knows nothing of networks and tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from lmworks.base.settings import Settings


class SamplingSettings(Settings):
    """How the next token is chosen and when to stop. Temperature 0 is greedy."""

    max_tokens: int = Field(256, ge=1, description="Stop after this many new tokens.")
    temperature: float = Field(0.0, ge=0, description="0: the likeliest token; 1: the model's own distribution.")
    top_k: int = Field(0, ge=0, description="Draw from the k likeliest tokens only; 0: all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the fewest tokens whose probabilities reach p.")
    min_p: float = Field(0.0, ge=0, le=1, description="Drop tokens less likely than this share of the likeliest.")
    repetition_penalty: float = Field(1.0, gt=0, description="Above 1: tokens already in the text become less likely.")
    no_repeat_ngram_size: int = Field(0, ge=0, description="No n tokens in a row occur twice; 0: they may.")
    num_beams: int = Field(1, ge=1, description="Beam search that keeps so many texts; 1: none.")
    length_penalty: float = Field(
        1.0, description="Beams are judged by log p / length ** this: above 1, long ones win."
    )
    early_stopping: bool | Literal["never"] = Field(
        False, description="Beams: true ends with the first num_beams texts; never: only when none can get better."
    )
    seed: int = Field(0, description="The same seed draws the same text.")
    stop: list[str] = Field(default_factory=list, description="Stop before any of these strings.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError("beam search (num_beams) draws nothing: set temperature to 0, or num_beams to 1")
        return self


@dataclass(frozen=True)
class Rules:
    """What the publisher of a model demands of every text, by the keys of Hugging Face's generation config.

    Attributes:
        start: what the decoder of an encoder-decoder begins with (decoder_start_token_id).
        first: the first new token, whatever the logits say (forced_bos_token_id).
        last: the new token at the limit of max_tokens (forced_eos_token_id).
        least: new tokens before the text may end (min_new_tokens, min_length).
        never: sequences of ids that must not be written (suppress_tokens, bad_words_ids).
    """

    start: int | None = None
    first: int | None = None
    last: int | None = None
    least: int = 0
    never: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, generation: Mapping[str, Any], both: bool = False) -> Rules:
        """The rules of a generation_config.json.

        Args:
            generation: its content.
            both: whether the model is an encoder-decoder; lengths then count the decoder's start.
        """
        start = generation.get("decoder_start_token_id", generation.get("bos_token_id"))
        least = generation.get("min_new_tokens") or (max(0, (generation.get("min_length") or 0) - 1) if both else 0)
        never = [
            *([token] for token in generation.get("suppress_tokens") or ()),
            *(generation.get("bad_words_ids") or ()),
        ]
        return cls(
            start=_single(start) if both else None,
            first=_single(generation.get("forced_bos_token_id")) if both else None,
            last=_single(generation.get("forced_eos_token_id")) if both else None,
            least=int(least),
            never=tuple(tuple(ids) for ids in never),
        )


def published(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The beam search that a generation_config.json asks for, as fields of SamplingSettings.

    Where it says nothing of beams there are four, as in Vaswani et al. 2017, section 6.1.
    """
    names = ("num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size", "repetition_penalty")
    told = {name: generation[name] for name in names if generation.get(name) is not None}
    most = generation.get("max_new_tokens") or (generation.get("max_length") or 0) - 1
    return {"num_beams": 4, **told, **({"max_tokens": most} if most > 0 else {})}


def ruled(
    scores: torch.Tensor,
    settings: SamplingSettings,
    rules: Rules,
    texts: Sequence[Sequence[int]],
    new: Sequence[int],
    limits: Sequence[int],
    end_ids: Iterable[int],
) -> torch.Tensor:
    """Scores (B, V) with what may not come set to minus infinity.

    Args:
        scores: logits or log-probabilities.
        settings: of them no_repeat_ngram_size.
        rules: the publisher's.
        texts: for each row all ids so far.
        new: how many of them are new.
        limits: how many more new ones a row may get.
        end_ids: what ends a text.
    """
    size, forced = settings.no_repeat_ngram_size, (rules.first, rules.last) != (None, None)
    if not (size or forced or rules.never or rules.least):
        return scores
    scores = scores.clone()
    for row, (text, count, left) in enumerate(zip(texts, new, limits, strict=True)):
        banned = _repeating(text, size) if size else []
        banned += [ids[-1] for ids in rules.never if tuple(text[len(text) - len(ids) + 1 :]) == ids[:-1]]
        if count < rules.least:
            banned += end_ids
        scores[row, banned] = -torch.inf
        must = rules.first if count == 0 and rules.first is not None else rules.last if left == 1 else None
        if must is not None:
            scores[row] = -torch.inf
            scores[row, must] = 0.0
    return scores


def _repeating(text: Sequence[int], size: int) -> list[int]:
    """The ids that would complete a sequence of ``size`` ids which the text has already."""
    if len(text) < size:
        return []
    tail = list(text[len(text) - size + 1 :])
    return [text[end] for end in range(size - 1, len(text)) if list(text[end - size + 1 : end]) == tail]


def _single(token: int | Sequence[int] | None) -> int | None:
    return token if token is None or isinstance(token, int) else next(iter(token), None)


def distribution(logits: torch.Tensor, settings: SamplingSettings, earlier: Sequence[Sequence[int]]) -> torch.Tensor:
    """Probabilities (B, V) float32 that tokens are drawn from.

    Args:
        logits: (B, V).
        settings: temperature and filters; temperature 0 counts as 1 here.
        earlier: for each row the ids that the repetition penalty speaks of.
    """
    logits = penalised(logits.float(), settings.repetition_penalty, earlier)
    if settings.temperature not in (0.0, 1.0):
        logits = logits / settings.temperature
    if 0 < settings.top_k < logits.shape[-1]:
        least = logits.topk(settings.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if settings.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        # a token stays while those before it have not reached p; the likeliest always stays
        beyond = probabilities.cumsum(-1) - probabilities >= settings.top_p
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    probabilities = logits.softmax(-1)
    if settings.min_p > 0:
        low = probabilities < settings.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(low, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def penalised(logits: torch.Tensor, penalty: float, earlier: Sequence[Sequence[int]]) -> torch.Tensor:
    """Divide positive and multiply negative logits of earlier ids by the penalty (Keskar et al. 2019, CTRL)."""
    if penalty == 1.0:
        return logits
    logits = logits.clone()
    for row, ids in zip(logits, earlier, strict=True):
        seen = torch.tensor(sorted(set(ids)), dtype=torch.int64, device=logits.device)
        scores = row[seen]
        row[seen] = torch.where(scores > 0, scores / penalty, scores * penalty)
    return logits


def pick(
    logits: torch.Tensor,
    settings: SamplingSettings,
    generators: Sequence[torch.Generator],
    earlier: Sequence[Sequence[int]],
) -> list[int]:
    """One id a row of (B, V) logits. Each row has its own generator, so a batch draws what each would alone."""
    if settings.temperature == 0:
        return penalised(logits, settings.repetition_penalty, earlier).argmax(-1).tolist()
    totals = distribution(logits, settings, earlier).double().cumsum(-1).cpu()
    chosen = []
    for row, generator in zip(totals, generators, strict=True):
        draw = torch.rand((), generator=generator, dtype=torch.float64) * row[-1]
        chosen.append(min(int(torch.searchsorted(row, draw, right=True)), len(row) - 1))
    return chosen
