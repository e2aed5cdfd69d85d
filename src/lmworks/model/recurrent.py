"""Recurrent layers in place of a transformer's blocks: a cell reads the tokens of a document one after another, and
what it keeps of them is a state of fixed size.

rnn   h = tanh(W x + U h + b) (Elman 1990)
gru   a gated unit (Cho et al. 2014, in the variant of cuDNN and PyTorch)
lstm  the long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000)

The cells are PyTorch's. Dropout stands on the output of each layer and never inside the recurrence (Zaremba et al.
2014). Documents that are packed in a row are read separately: each starts with a state of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.checkpoint import checkpoint

from lmworks.kernels.dropout import dropout
from lmworks.model.cache import LayerState, State
from lmworks.model.config import ModelConfig
from lmworks.model.documents import Documents

CELLS: dict[str, Callable[[int, int], nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class RecurrentLayer(nn.Module):
    """One cell, and dropout of its output."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cell = CELLS[config.layer](config.hidden_size, config.hidden_size)
        self.dropout = config.hidden_dropout

    def forward(self, x: torch.Tensor, batch_sizes: torch.Tensor, state: State = ()) -> tuple[torch.Tensor, State]:
        """Read documents step by step, the longest first.

        Args:
            x: (tokens, E) in the order of :meth:`Documents.steps`.
            batch_sizes: (steps,) int64, documents at each step, as of a PackedSequence.
            state: (N, E) of each document before its first token: h, and for an lstm c; empty: zeros.

        Returns:
            (tokens, E) outputs, and the state after each document's last token.
        """
        dtype, initial = self.cell.get_parameter("weight_ih_l0").dtype, None
        if state:
            parts = tuple(part[None].to(dtype).contiguous() for part in state)
            initial = parts if len(parts) > 1 else parts[0]
        # the products of all steps but the first are small: rounded to 16 bits they would be no faster
        with torch.autocast(x.device.type, enabled=False):
            y, last = self._run(x.to(dtype), batch_sizes, initial)
        last = last if isinstance(last, tuple) else (last,)
        y = y.to(x.dtype)
        return dropout(y, self.dropout) if self.training else y, tuple(part[0] for part in last)

    def _run(
        self, x: torch.Tensor, batch_sizes: torch.Tensor, state: torch.Tensor | State | None
    ) -> tuple[torch.Tensor, torch.Tensor | State]:
        count = int(batch_sizes[0])
        if int(batch_sizes[-1]) == count:  # all of one length
            y, last = self.cell(x.view(len(batch_sizes), count, -1), state)
            return y.flatten(0, 1), last
        y, last = self.cell(PackedSequence(x, batch_sizes), state)
        return y.data, last


def run(
    layers: Iterable[nn.Module],
    x: torch.Tensor,
    segments: torch.Tensor | None,
    states: list[LayerState] | None = None,
    recompute: int = 0,
) -> torch.Tensor:
    """Input embeddings (B, T, E) -> hidden states (B, T, E); zeros at padding.

    Args:
        layers: RecurrentLayers.
        x: (B, T, E).
        segments: (B, T) document numbers, 0 is padding; None: each row is one document.
        states: of the rows, one a layer, which this call continues and replaces; each row is one document then.
        recompute: activation checkpointing: how many of the lowest layers save only their input.

    Raises:
        ValueError: a row with a state holds several documents.
    """
    documents = Documents.of(x.shape[0], x.shape[1], segments).longest_first()
    hidden = x.new_zeros(x.shape[0] * x.shape[1], x.shape[2])
    if not len(documents.lengths):
        return hidden.view(x.shape)
    if states is not None and len(documents.rows.unique()) < len(documents.rows):
        raise ValueError("a row that continues a state is one document")
    places, batch_sizes = documents.steps()
    places, rows = places.to(x.device), documents.rows.to(x.device)
    y = x.flatten(0, 1).index_select(0, places)
    for index, layer in enumerate(layers):
        before = () if states is None else states[index].of_rows(rows)
        if index < recompute and torch.is_grad_enabled():
            y, after = checkpoint(layer, y, batch_sizes, before, use_reentrant=False)
        else:
            y, after = layer(y, batch_sizes, before)
        if states is not None:
            states[index].put(rows, after)
    return hidden.index_copy(0, places, y).view(x.shape)
