"""A tiny language model as a first course writes it: what the tiny benchmarks are faster than.

One module a head, each with three small matrices; a mask buffer; scores, softmax and products written out; logits of
every place, and cross-entropy over all of them. Pre-norm, learned positions, GELU, an untied head, dropout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Sizes:
    """Sizes of a plain model; the defaults are the published tiny ones."""

    vocab: int
    block: int
    causal: bool
    width: int = 128
    heads: int = 4
    layers: int = 4
    dropout: float = 0.1


class Head(nn.Module):
    """One head of attention."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        size = sizes.width // sizes.heads
        self.key = nn.Linear(sizes.width, size, bias=False)
        self.query = nn.Linear(sizes.width, size, bias=False)
        self.value = nn.Linear(sizes.width, size, bias=False)
        self.dropout = nn.Dropout(sizes.dropout)
        self.causal = sizes.causal
        self.register_buffer("mask", torch.tril(torch.ones(sizes.block, sizes.block)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, width) -> (B, T, width / heads)."""
        length = x.shape[1]
        key, query, value = self.key(x), self.query(x), self.value(x)
        scores = query @ key.transpose(-2, -1) * key.shape[-1] ** -0.5
        if self.causal:
            scores = scores.masked_fill(self.mask[:length, :length] == 0, float("-inf"))
        return self.dropout(functional.softmax(scores, dim=-1)) @ value


class Heads(nn.Module):
    """Several heads side by side, and a projection."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(sizes) for _ in range(sizes.heads))
        self.project = nn.Linear(sizes.width, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, width) -> (B, T, width)."""
        return self.dropout(self.project(torch.cat([head(x) for head in self.heads], dim=-1)))


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and beside a residual."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = Heads(sizes)
        self.feedforward = nn.Sequential(
            nn.Linear(sizes.width, 4 * sizes.width),
            nn.GELU(),
            nn.Linear(4 * sizes.width, sizes.width),
            nn.Dropout(sizes.dropout),
        )
        self.first, self.second = nn.LayerNorm(sizes.width), nn.LayerNorm(sizes.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, width) -> (B, T, width)."""
        x = x + self.attention(self.first(x))
        return x + self.feedforward(self.second(x))


class PlainModel(nn.Module):
    """Token ids -> logits of every place."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.token_embeddings = nn.Embedding(sizes.vocab, sizes.width)
        self.places = nn.Embedding(sizes.block, sizes.width)
        self.blocks = nn.Sequential(*(Block(sizes) for _ in range(sizes.layers)))
        self.norm = nn.LayerNorm(sizes.width)
        self.head = nn.Linear(sizes.width, sizes.vocab)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, T) -> (B, T, vocab)."""
        x = self.token_embeddings(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def train(model: PlainModel, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], rate: float) -> Iterator[float]:
    """The loss of each step.

    Args:
        model: changed in place.
        batches: ids (B, T) and targets (B, T), -100 where nothing is to be predicted.
        rate: of AdamW.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model.train()
    for ids, targets in batches:
        logits = model(ids)
        loss = functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
