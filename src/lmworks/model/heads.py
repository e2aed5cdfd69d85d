"""Classification heads: a linear for each entry of the config, over hidden states at the tokens that have a label.

pooled  reads tanh of the pooler's linear over a text's first hidden state (BERT: Devlin et al. 2019, section 3.1).
first   reads the hidden state of a text's first token, last that of its last one, tokens that of each token.
"""

from __future__ import annotations

import torch
from torch import nn

from lmworks.model.config import ModelConfig


class Heads(nn.ModuleDict):
    """The classification heads of a model, by name."""

    def __init__(self, config: ModelConfig) -> None:
        if reserved := [head.name for head in config.heads if hasattr(nn.ModuleDict, head.name)]:
            raise ValueError(f"{reserved[0]!r} cannot be the name of a head: modules have an attribute of this name")
        super().__init__({head.name: nn.Linear(config.hidden_size, head.size) for head in config.heads})
        self.kinds = {head.name: head.kind for head in config.heads}

    def logits(self, name: str, hidden: torch.Tensor, pooler: nn.Module | None) -> torch.Tensor:
        """(N, E) hidden states of the tokens that a head reads -> (N, C) logits of its classes."""
        if name not in self:
            raise ValueError(f"this model has no head {name!r}")
        if self.kinds[name] == "pooled":
            assert pooler is not None, "the config asks for a pooler"
            hidden = torch.tanh(pooler(hidden))
        return self[name](hidden)
