"""Trained rows of some tokens in tables that are frozen otherwise: the embeddings and the head's matrix.

As PEFT's trainable tokens: the rows themselves are trained, not their difference to the base's, and rows of ids beyond
the base's table are added to it. Where the head has the embeddings' matrix, it has their trained rows, too
(model/token_rows). Shapes: V rows of the base's table, W >= V with the adapter's, n trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lmworks.adapt.adapters import Adapter
from lmworks.model.stored_layers import StoredEmbedding, StoredLinear
from lmworks.model.token_rows import rows_of


class TokenRows(Adapter):
    """A table with trained rows.

    Args:
        base: embeddings, or the head's linear, which has no bias.
        indices: n ids of tokens, ascending.
        rows: (n, E) initial rows; None: the base's, where the base has all of them.
    """

    def __init__(self, base: nn.Module, indices: Sequence[int], rows: torch.Tensor | None = None) -> None:
        super().__init__(base)
        initial = table_rows(base, indices) if rows is None else rows.float()
        self.token_rows = nn.Parameter(initial.clone())
        self.indices: torch.Tensor
        self.places: torch.Tensor
        size = table_size(base)
        self.added = max(0, indices[-1] + 1 - size)
        places = torch.full((size + self.added,), -1)
        places[list(indices)] = torch.arange(len(indices))
        self.register_buffer("indices", torch.tensor(indices).to(initial.device), persistent=False)
        self.register_buffer("places", places.to(initial.device), persistent=False)  # of each id in the rows; -1: none

    def merged_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """The table with the trained rows: (W, E)."""
        grown = functional.pad(weight.detach(), (0, 0, 0, self.added))
        return grown.index_copy(0, self.indices, self.token_rows.detach().to(weight.dtype))

    def extra_repr(self) -> str:
        return f"{len(self.indices)} rows, {self.added} of them added, enabled={self.enabled}"


class EmbeddingRows(TokenRows):
    """Embeddings with trained rows: ids (...) -> (..., E)."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """See the class."""
        if not self.active:
            return self.base(ids)
        places = self.places[ids]
        is_trained = places >= 0
        embeddings = self.base(ids.masked_fill(is_trained, 0))
        own = functional.embedding(places.clamp(min=0), self.token_rows).to(embeddings.dtype)
        return torch.where(is_trained.unsqueeze(-1), own, embeddings)


class HeadRows(TokenRows):
    """A head's matrix with trained rows: hidden states (..., E) -> logits (..., W)."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """See the class."""
        logits, updates = self.base(hidden), rows_of(self)
        return logits if updates is None else updates.put(logits, hidden)


def table_size(table: nn.Module) -> int:
    """V."""
    weight = table.storage if isinstance(table, StoredEmbedding | StoredLinear) else table.get_parameter("weight")
    return int(weight.shape[0])


def table_rows(table: nn.Module, indices: Sequence[int]) -> torch.Tensor:
    """(n, E) rows of a table in float32."""
    index = torch.tensor(indices)
    if isinstance(table, StoredEmbedding | StoredLinear):
        return table.storage.rows(index).dequantized()
    weight = table.get_parameter("weight").detach()
    return weight[index.to(weight.device)].float()
