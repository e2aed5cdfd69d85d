"""Logits -> the next token's id. Filters apply in the order that Hugging Face's generate uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field

from lmworks.base.settings import Settings


class SamplingSettings(Settings):
    """How the next token is chosen and when to stop. Temperature 0 is greedy."""

    max_tokens: int = Field(256, ge=1, description="Stop after this many new tokens.")
    temperature: float = Field(0.0, ge=0, description="0: the likeliest token; 1: the model's own distribution.")
    top_k: int = Field(0, ge=0, description="Draw from the k likeliest tokens only; 0: all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the fewest tokens whose probabilities reach p.")
    min_p: float = Field(0.0, ge=0, le=1, description="Drop tokens less likely than this share of the likeliest.")
    repetition_penalty: float = Field(1.0, gt=0, description="Above 1: tokens already in the text become less likely.")
    seed: int = Field(0, description="The same seed draws the same text.")
    stop: list[str] = Field(default_factory=list, description="Stop before any of these strings.")


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
