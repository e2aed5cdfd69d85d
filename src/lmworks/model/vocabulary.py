"""Growing the vocabulary of a network: rows for new tokens, each the mean of the rows that there are.

A new token then begins with the mean of all logits, and takes little probability from the others (Hewitt 2021,
"Initializing new word embeddings for pretrained language models"); transformers' resize_token_embeddings draws from a
normal distribution very close around this mean.
"""

from __future__ import annotations

import torch
from torch import nn

from lmworks.model.storage import DenseStorage
from lmworks.model.stored_layers import StoredEmbedding, StoredLinear
from lmworks.model.transformer import Transformer


@torch.no_grad()
def grow(network: Transformer, vocab_size: int) -> None:
    """Give a network's embeddings, head and bias of the logits as many rows; new ones are the mean of the old.

    Args:
        network: changed in place; its tables are copied, quantized ones in float32.
        vocab_size: at least the present one.
    """
    _grow_table(network.embed_tokens, vocab_size)
    if network.lm_head is not None:
        _grow_table(network.lm_head, vocab_size)
    set_size(network, vocab_size)


@torch.no_grad()
def set_size(network: Transformer, vocab_size: int) -> None:
    """Set the vocabulary's size in the config, and the length of the bias of the logits, whose new elements are the
    mean of the old; the tables are left as they are. What it was before is the network's ``grown_from``."""
    if vocab_size == network.config.vocab_size:
        return
    old = network.config.vocab_size if network.grown_from is None else network.grown_from
    network.grown_from = old if vocab_size > old else None
    if network.head_bias is not None:
        network.head_bias = nn.Parameter(_grown(network.head_bias, vocab_size), network.head_bias.requires_grad)
    network.config = network.config.model_copy(update={"vocab_size": vocab_size})


def _grow_table(table: nn.Module, size: int) -> None:
    if isinstance(table, StoredEmbedding | StoredLinear):
        storage = table.storage
        rows = storage.tensor if isinstance(storage, DenseStorage) else storage.dequantized()
        table.storage = DenseStorage(_grown(rows, size))
    else:
        table.weight = nn.Parameter(_grown(table.get_parameter("weight"), size), requires_grad=False)
    for attribute in ("num_embeddings", "out_features"):
        if hasattr(table, attribute):
            setattr(table, attribute, size)


def _grown(rows: torch.Tensor, size: int) -> torch.Tensor:
    mean = rows.float().mean(0, keepdim=True).to(rows.dtype)
    return torch.cat([rows.detach()[:size], mean.expand(max(0, size - len(rows)), *rows.shape[1:])])
