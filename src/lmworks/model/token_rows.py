"""Tables with a row for each token (the embeddings, the head's matrix) of which an adapter replaces some rows or adds
some: what the transformer and the losses ask of them. The module that has the rows is in adapt/token_rows.

Logits of the base's table are computed as ever, and those of the adapter's tokens are put in their places: the table,
which is large and may be quantized, is not copied. Shapes: V rows of the base's table, W >= V rows with the adapter's,
n of them the adapter's.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional


class TokenRows(NamedTuple):
    """Rows of an adapter.

    Attributes:
        indices: (n,) int64 ids of their tokens, ascending.
        rows: (n, E), which may require a gradient.
        added: W - V.
    """

    indices: torch.Tensor
    rows: torch.Tensor
    added: int

    def put(self, logits: torch.Tensor, hidden: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (..., V) of the base's table -> logits (..., W).

        Args:
            logits: with their bias.
            hidden: (..., E) input of the head.
            bias: (W,) of the logits.
        """
        own = functional.linear(hidden, self.rows.to(hidden.dtype), None if bias is None else bias[self.indices])
        return functional.pad(logits, (0, self.added)).index_copy(-1, self.indices, own.to(logits.dtype))

    def take(self, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradient of logits (N, W), which is overwritten -> that of the base's logits (N, V), and that of these
        tokens' logits (N, n)."""
        own = gradient.index_select(1, self.indices)
        gradient.index_fill_(1, self.indices, 0.0)
        return gradient[:, : gradient.shape[1] - self.added].contiguous(), own


def base_bias(bias: torch.Tensor | None, size: int) -> torch.Tensor | None:
    """(W,) bias of the logits -> (V,) that of the base's table of this size."""
    return bias if bias is None or len(bias) == size else bias[:size]


def rows_of(table: nn.Module) -> TokenRows | None:
    """The rows that an adapter puts into a table; None without an adapter, or while it is disabled or merged."""
    if not hasattr(table, "token_rows") or not table.active:
        return None
    return TokenRows(cast(torch.Tensor, table.indices), cast(torch.Tensor, table.token_rows), cast(int, table.added))


def base_table(table: nn.Module) -> nn.Module:
    """The table beneath an adapter's rows; the table itself without any."""
    return cast(nn.Module, table.base) if hasattr(table, "token_rows") else table
