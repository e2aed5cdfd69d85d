"""Heads that classify or rate: a linear for each entry of the config, over hidden states at the tokens with a label.

pooled  reads tanh of the pooler's linear over a text's first hidden state (BERT: Devlin et al. 2019, section 3.1).
first   reads the hidden state of a text's first token, last that of its last one, tokens that of each token.

Their losses are those of Hugging Face's classes: cross-entropy of one class; binary cross-entropy of each of several
labels and the squared error of values, both averaged over the outputs; of a span the mean of the cross-entropies of its
start and its end over the tokens of its document (Devlin et al. 2019, section 4.2).

Shapes: N places with a label, C outputs, D documents.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from lmworks.data.batch import SPAN_END, SPAN_START, HeadLabels
from lmworks.kernels.activations import activate
from lmworks.kernels.dropout import dropout
from lmworks.model.config import HeadConfig, ModelConfig


class Head(nn.Linear):
    """One head: the last linear, and the linear before it where the config has one."""

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__(hidden_size, config.size, bias=config.bias)
        self.config = config
        self.dense = nn.Linear(hidden_size, hidden_size) if config.dense else None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, E) hidden states -> (N, C) logits."""
        if self.dense is not None and self.config.dense is not None:
            hidden = activate(self.config.dense, self.dense(self._dropped(hidden)))
        return super().forward(self._dropped(hidden))

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, self.config.dropout) if self.training and self.config.dropout else x


class Heads(nn.ModuleDict):
    """The heads of a model beside its language head, by name.

    Raises:
        ValueError: a name is that of an attribute of modules.
    """

    def __init__(self, config: ModelConfig) -> None:
        if reserved := [head.name for head in config.heads if hasattr(nn.ModuleDict, head.name)]:
            raise ValueError(f"{reserved[0]!r} cannot be the name of a head: modules have an attribute of this name")
        super().__init__({head.name: Head(head, config.hidden_size) for head in config.heads})
        self.configs = {head.name: head for head in config.heads}

    def logits(self, name: str, hidden: torch.Tensor, pooler: nn.Module | None) -> torch.Tensor:
        """(N, E) hidden states of the tokens that a head reads -> (N, C) logits of its outputs.

        Args:
            name: of the head.
            hidden: (N, E).
            pooler: the model's; needed by heads of kind "pooled" alone.

        Raises:
            ValueError: there is no such head.
        """
        if name not in self:
            raise ValueError(f"this model has no head {name!r}")
        if self.configs[name].kind == "pooled":
            assert pooler is not None, "the config asks for a pooler"
            hidden = torch.tanh(pooler(hidden))
        return self[name](hidden)


class HeadLosses(NamedTuple):
    """The losses of a head's outputs, by place, or by document where the head gives spans.

    Attributes:
        loss: (N,) or (D,) float32, in nats; of values the squared error.
        correct: whether each is right; of several labels: whether all are; of values: whether the rounded value is.
        places: (N,) or (D,) int64 index in the flattened ids, by which the document is known.
    """

    loss: torch.Tensor
    correct: torch.Tensor
    places: torch.Tensor


def head_losses(head: HeadConfig, logits: torch.Tensor, labels: HeadLabels, document: torch.Tensor) -> HeadLosses:
    """The losses of a head, as this file's docstring defines them.

    Args:
        head: its config.
        logits: (N, C) float32.
        labels: of the N places: classes (N,) int64, or labels or values (N, C) float32.
        document: (N,) int64 number of each place's document, in ascending order.
    """
    if head.problem == "span":
        return _span_losses(logits, labels, document)
    if head.problem == "single_label":
        loss = functional.cross_entropy(logits, labels.classes, reduction="none")
        return HeadLosses(loss, logits.argmax(1) == labels.classes, labels.places)
    if head.problem == "multi_label":
        loss = functional.binary_cross_entropy_with_logits(logits, labels.classes, reduction="none").mean(1)
        return HeadLosses(loss, ((logits > 0) == (labels.classes > 0.5)).all(1), labels.places)
    errors = logits - labels.classes
    return HeadLosses(errors.square().mean(1), (errors.abs() <= 0.5).all(1), labels.places)


def _span_losses(logits: torch.Tensor, labels: HeadLabels, document: torch.Tensor) -> HeadLosses:
    """By document: (log-sum-exp of the scores - score of the right token), of starts and ends, averaged."""
    counts = torch.unique_consecutive(document, return_counts=True)[1].tolist()
    nats, correct, places = [], [], []
    parts = zip(logits.split(counts), labels.classes.split(counts), labels.places.split(counts), strict=True)
    for scores, marks, at in parts:
        ends = [int((marks & mark).nonzero()[0]) for mark in (SPAN_START, SPAN_END)]
        costs = [torch.logsumexp(scores[:, side], 0) - scores[end, side] for side, end in enumerate(ends)]
        nats.append((costs[0] + costs[1]) / 2)
        correct.append(torch.stack([scores[:, side].argmax() == end for side, end in enumerate(ends)]).all())
        places.append(at[0])
    return HeadLosses(torch.stack(nats), torch.stack(correct), torch.stack(places))
