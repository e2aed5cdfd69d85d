"""Outputs of a head for examples: logits by example, packed without padding, in the order given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.data.packing import collate
from lmworks.evaluate import progress
from lmworks.evaluate.prediction import logistic, softmax
from lmworks.evaluate.scoring import groups_by_length
from lmworks.model.chunks import EVALUATED_TOKENS
from lmworks.model.config import HeadConfig
from lmworks.model.forward import hidden_states
from lmworks.model.transformer import Transformer


@torch.no_grad()
def head_logits(
    network: Transformer, examples: Sequence[Example], name: str, row_tokens: int = EVALUATED_TOKENS
) -> list[np.ndarray]:
    """The logits of a head.

    Args:
        network: of any architecture; its mode is the same afterwards, dropout is off meanwhile.
        examples: with labels for the head, of which only the places count.
        name: of the head.
        row_tokens: tokens that pass through at a time; a longer example passes alone.

    Returns:
        For each example (N, C) float32, N its places.

    Raises:
        InputError: the network gives numbers that are not finite, of which nothing can be said.
    """
    logits: list[np.ndarray] = [np.zeros((0, 0), dtype=np.float32)] * len(examples)
    training = network.training
    network.eval()
    try:
        for rows in groups_by_length(examples, row_tokens):
            batch = collate([examples[row] for row in rows]).to(network.device)
            hidden = hidden_states(network, batch).flatten(0, 1)
            of_rows = network.head_logits(name, hidden.index_select(0, batch.labels[name].places)).float().cpu()
            if not of_rows.isfinite().all():
                hint = "its weights are damaged, or a run went astray: fetch it again, or train with a lower rate"
                raise InputError("the model gives numbers that are not finite", f"head {name}", hint)
            counts = [len(examples[row].labels[name].places) for row in rows]
            for row, part in zip(rows, of_rows.split(counts), strict=True):
                logits[row] = part.numpy()
            progress.report(len(rows))
    finally:
        network.train(training)
    return logits


def probabilities(logits: np.ndarray, head: HeadConfig) -> np.ndarray:
    """(N, C) logits -> (N, C) float64 probabilities: of each class, or of each label on its own."""
    logits = logits.astype(np.float64)
    if head.problem == "multi_label":
        return logistic(logits)
    return softmax(logits)
