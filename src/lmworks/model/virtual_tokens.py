"""Virtual tokens: what is learned in front of every text while all weights are frozen.

soft prompt  embeddings of P tokens that are in no vocabulary (prompt tuning: Lester et al. 2021, section 2)
prefix       in each layer the keys and values of P tokens that precede the text (prefix tuning: Li & Liang 2021,
             section 4); they are rotated as little as PEFT rotates them: not at all

Each document of a packed row gets its own, and the positions of its tokens begin after them. The network puts virtual
tokens into the rows and leaves them out of the hidden states that it returns, so losses, heads and generation know
nothing of them. With a cache they are cached once, before the first token.

Shapes: P virtual tokens of a document, D documents, W width of a row with its virtual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from lmworks.model.config import ModelConfig

FIRST_TOKEN = ("pooled", "first")
"""Kinds of heads that read a text's first token, which is a virtual one where there is a soft prompt, as in PEFT."""


class VirtualTokens(nn.Module):
    """Virtual tokens of any kind.

    Attributes:
        count: P.
        enabled: whether the network reads them.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.enabled = count, True


class SoftPrompt(VirtualTokens):
    """Embeddings (P, embedding_width), as the token embeddings are where positions are added to them: scaled."""

    def __init__(self, embeddings: torch.Tensor) -> None:
        super().__init__(len(embeddings))
        self.embeddings = nn.Parameter(embeddings)


class Prefix(VirtualTokens):
    """Keys and values (layers, 2, P, K, D): K key-value heads, D the size of a head."""

    def __init__(self, keys_and_values: torch.Tensor) -> None:
        super().__init__(keys_and_values.shape[2])
        self.keys_and_values = nn.Parameter(keys_and_values)

    def of_layers(self, rows: ExpandedRows) -> list[LayerPrefix]:
        """What the attention of each layer reads before every document of these rows."""
        return [LayerPrefix(keys, values, rows) for keys, values in self.keys_and_values.unbind()]


@dataclass(frozen=True)
class ExpandedRows:
    """Where the tokens of a batch (B, T) lie in rows (B, W) that have P virtual tokens before each document.

    Attributes:
        tokens: (B * T,) int64 place of each token in the B * W tokens of the rows.
        virtual: (D, P) int64 places of the virtual tokens of each document.
        documents: (D,) int64 place of each document's first token in the B * T tokens of the batch.
        shape: (B, W).
    """

    tokens: torch.Tensor
    virtual: torch.Tensor
    documents: torch.Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, count: int, positions: torch.Tensor, segments: torch.Tensor | None) -> ExpandedRows:
        """The rows of a batch.

        Args:
            count: P.
            positions: (B, T); only its shape and device matter.
            segments: (B, T) document numbers, 0 is padding and gets no virtual tokens; None: each row is one document.
        """
        batch, length = positions.shape
        begins = torch.zeros_like(positions, dtype=torch.bool) if segments is None else segments != 0
        if segments is None:
            begins[:, 0] = True
        else:
            begins[:, 1:] &= segments[:, 1:] != segments[:, :-1]
        begun = begins.cumsum(1)
        width = length + count * int(begun[:, -1].max())
        columns = torch.arange(length, device=positions.device) + count * begun
        tokens = (columns + width * torch.arange(batch, device=positions.device)[:, None]).flatten()
        documents = begins.flatten().nonzero().squeeze(1)
        virtual = tokens[documents, None] + torch.arange(-count, 0, device=positions.device)
        return cls(tokens, virtual, documents, (batch, width))

    def positions(self, positions: torch.Tensor) -> torch.Tensor:
        """(B, T) positions of the tokens -> (B, W), with those of virtual tokens, which count from 0."""
        return self.insert(positions, torch.arange(self.virtual.shape[1], device=positions.device))

    def segments(self, segments: torch.Tensor | None) -> torch.Tensor | None:
        """(B, T) document numbers -> (B, W): virtual tokens are a part of their document."""
        if segments is None:
            return None
        return self.insert(segments, segments.flatten()[self.documents, None].expand(self.virtual.shape))

    def insert(self, x: torch.Tensor, virtual: torch.Tensor | None = None) -> torch.Tensor:
        """Numbers of tokens with those of virtual tokens among them.

        Args:
            x: (B, T, ...).
            virtual: (P, ...), or (D, P, ...) by document; None: zeros.

        Returns:
            (B, W, ...).
        """
        return self.insert_flat(x.flatten(0, 1), virtual).unflatten(0, self.shape)

    def insert_flat(self, x: torch.Tensor, virtual: torch.Tensor | None = None) -> torch.Tensor:
        """(B * T, ...) -> (B * W, ...), as :meth:`insert`."""
        rows = x.new_zeros(self.shape[0] * self.shape[1], *x.shape[1:]).index_copy_(0, self.tokens, x)
        if virtual is None:
            return rows
        by_document = virtual.to(x.dtype).expand(*self.virtual.shape, *x.shape[1:])
        return rows.index_copy_(0, self.virtual.flatten(), by_document.flatten(0, 1))

    def tokens_of(self, x: torch.Tensor) -> torch.Tensor:
        """(B * W, ...) -> (B * T, ...), without the virtual tokens."""
        return x.index_select(0, self.tokens)

    def virtual_sum(self, x: torch.Tensor) -> torch.Tensor:
        """(B * W, F) -> (P, F): the sums of each virtual token over all documents."""
        return x.index_select(0, self.virtual.flatten()).unflatten(0, self.virtual.shape).sum(0, dtype=torch.float32)

    def hidden_states_of(self, x: torch.Tensor, config: ModelConfig) -> torch.Tensor:
        """Hidden states (B, W, E) -> (B, T, E), without the virtual tokens.

        Where the model has a head that reads a text's first token, the state at each document's first token is that of
        its first virtual token, as in PEFT.
        """
        places = self.tokens
        if any(head.kind in FIRST_TOKEN for head in config.heads):
            places = places.index_copy(0, self.documents, self.virtual[:, 0])
        return x.flatten(0, 1).index_select(0, places).unflatten(0, (self.shape[0], -1))


class LayerPrefix(NamedTuple):
    """The keys and values (P, K, D) that precede every document in one layer, and the rows that have room for them."""

    keys: torch.Tensor
    values: torch.Tensor
    rows: ExpandedRows


Prefixes = Sequence[LayerPrefix]  # one for each layer
