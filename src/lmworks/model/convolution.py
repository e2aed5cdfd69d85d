"""Convolutional layers in place of a transformer's blocks: groups of filters over windows of neighbouring tokens.

relu(W [x_(t-a) ... x_(t+b)] + b) for windows of several sizes, one after another in the output (Kim 2014, eq. 2; there
they are followed by max over time, which is a head of kind "max" here). A token's windows are centred on it, one of an
even size has the further token before it; outside its document there are zeros. Kim's text has zeros of one window on
either side, so that his windows begin earlier and end later than ours, by half a window.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from lmworks.kernels.dropout import dropout
from lmworks.model.config import ModelConfig
from lmworks.model.documents import Documents


class ConvolutionLayer(nn.Module):
    """Groups of filters of equal number, ReLU, and dropout of the output: (B, T, E) -> (B, T, E)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        filters = config.hidden_size // len(config.kernel_sizes)
        self.convolutions = nn.ModuleList(nn.Conv1d(config.hidden_size, filters, size) for size in config.kernel_sizes)
        self.dropout = config.hidden_dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, E, S) tokens with zeros around every document -> (1, E, S)."""
        groups = []
        for convolution in self.convolutions:
            size = int(convolution.kernel_size[0])  # type: ignore[index]
            groups.append(convolution(functional.pad(x, (size // 2, (size - 1) // 2))))
        y = functional.relu(torch.cat(groups, dim=1))
        return dropout(y, self.dropout) if self.training else y


def run(layers: Iterable[nn.Module], x: torch.Tensor, segments: torch.Tensor | None, widest: int) -> torch.Tensor:
    """Input embeddings (B, T, E) -> hidden states (B, T, E); zeros at padding.

    Args:
        layers: ConvolutionLayers.
        x: (B, T, E).
        segments: (B, T) document numbers, 0 is padding; None: each row is one document.
        widest: the largest of the windows, which no two documents may share.
    """
    documents = Documents.of(x.shape[0], x.shape[1], segments)
    if not len(documents.lengths):
        return torch.zeros_like(x)
    sizes = documents.lengths
    inside = torch.arange(int(sizes.sum())) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    places = (documents.starts.repeat_interleave(sizes) + inside).to(x.device)
    # all documents in one line, with zeros between them
    shifts = torch.arange(len(sizes)).repeat_interleave(sizes) * widest
    line = (torch.arange(int(sizes.sum())) + shifts).to(x.device)
    length = int(sizes.sum()) + widest * len(sizes)
    flat, y = x.flatten(0, 1), x.flatten(0, 1).index_select(0, places)
    for layer in layers:
        spread = flat.new_zeros(length, flat.shape[1]).index_copy(0, line, y)
        y = layer(spread.t()[None])[0].t().index_select(0, line).to(x.dtype)
    return torch.zeros_like(flat).index_copy(0, places, y).view(x.shape)
