"""Convolutional layers in place of a transformer's blocks: groups of filters over windows of neighbouring tokens.

relu(W [x_(t-a) ... x_(t+b)] + b) for windows of several sizes, one after another in the output (Kim 2014, eq. 2). With
``max_over_time`` each filter's maximum over the text follows (eq. 3), and dropout of these maxima: every token of the
text has them as its state, so that a head may read any. A token's windows are centred on it, one of an even size has
the further token before it; outside its document there are zeros. Kim's text has zeros of a whole window on either
side, so that his windows begin earlier and end later than ours, by half a window.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from lmworks.kernels.dropout import dropout
from lmworks.model.config import ModelConfig
from lmworks.model.documents import Documents
from lmworks.model.linear import linear


class ConvolutionLayer(nn.Module):
    """Groups of filters of equal number, and ReLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        filters = config.hidden_size // len(config.kernel_sizes)
        self.convolutions = nn.ModuleList(nn.Conv1d(config.hidden_size, filters, size) for size in config.kernel_sizes)
        self.sizes = config.kernel_sizes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(S, E) tokens with zeros between documents -> (S, E).

        One product for all places of all windows, whose results are shifted and added: convolutions of PyTorch compile
        code for each new number of tokens.
        """
        parts = [part for convolution in self.convolutions for part in convolution.get_parameter("weight").unbind(2)]
        products = iter(linear(x, torch.cat(parts)).split([len(part) for part in parts], dim=1))
        groups = []
        for convolution, size in zip(self.convolutions, self.sizes, strict=True):
            y = sum(_shifted(next(products), size // 2 - place) for place in range(size))
            groups.append(y + convolution.get_parameter("bias"))
        return functional.relu(torch.cat(groups, dim=1))


def _shifted(x: torch.Tensor, by: int) -> torch.Tensor:
    """(S, E) rows moved down by ``by`` rows (up where it is negative), with zeros in the rows that become free."""
    return functional.pad(x, (0, 0, by, -by))


def run(layers: nn.ModuleList, x: torch.Tensor, segments: torch.Tensor | None, config: ModelConfig) -> torch.Tensor:
    """Input embeddings (B, T, E) -> hidden states (B, T, E); zeros at padding.

    Args:
        layers: ConvolutionLayers; in training mode, dropout follows each.
        x: (B, T, E).
        segments: (B, T) document numbers, 0 is padding; None: each row is one document.
        config: sizes of the windows, max_over_time, hidden_dropout.
    """
    documents = Documents.of(x.shape[0], x.shape[1], segments)
    if not len(documents.lengths):
        return torch.zeros_like(x)
    lengths, widest = documents.lengths, max(config.kernel_sizes)
    rate = config.hidden_dropout if layers.training else 0.0
    tokens = torch.arange(int(lengths.sum()))
    document = torch.arange(len(lengths)).repeat_interleave(lengths)  # of each token
    places = (documents.starts[document] + tokens - (lengths.cumsum(0) - lengths)[document]).to(x.device)
    # all documents in one line, with zeros between them
    spaced, size = (tokens + document * widest).to(x.device), len(tokens) + widest * len(lengths)
    document = document.to(x.device)
    flat, y = x.flatten(0, 1), x.flatten(0, 1).index_select(0, places)
    for index, layer in enumerate(layers):
        line = flat.new_zeros(size, flat.shape[1]).index_copy(0, spaced, y)
        y = layer(line).index_select(0, spaced).to(x.dtype)
        if index < len(layers) - 1 or not config.max_over_time:
            y = dropout(y, rate)
    if config.max_over_time:
        maxima = y.new_zeros(len(lengths), y.shape[1])
        maxima = maxima.scatter_reduce(0, document[:, None].expand_as(y), y, "amax", include_self=False)
        y = dropout(maxima, rate).index_select(0, document)
    return torch.zeros_like(flat).index_copy(0, places, y).view(x.shape)
