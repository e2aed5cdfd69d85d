"""Hidden states of a batch, from which losses and scores are computed."""

from __future__ import annotations

import torch

from lmworks.data.batch import Batch
from lmworks.model.transformer import Transformer


def hidden_states(network: Transformer, batch: Batch) -> torch.Tensor:
    """(B, T, E) of a batch on the network's device; its source, where it has one, passes through the encoder first."""
    segments = None if _is_unpacked(batch.segments) else batch.segments
    memory = source_segments = None
    if batch.source is not None:
        source_segments = None if _is_unpacked(batch.source.segments) else batch.source.segments
        memory = network.encode(batch.source.ids, source_segments, batch.source.positions)
    return network.hidden_states(
        batch.ids,
        positions=batch.positions,
        segments=segments,
        types=batch.types,
        memory=memory,
        memory_segments=source_segments,
    )


def _is_unpacked(segments: torch.Tensor) -> bool:
    """Whether each row is one document without padding, so that no attention mask is needed."""
    return bool((segments == 1).all())
