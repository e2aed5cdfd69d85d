"""Hidden states of whole texts from a network, read without padding; how many tokens a text may have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lmworks.generate.text_vectors import groups_by_length
from lmworks.model.transformer import Transformer

ROW_TOKENS = 1024  # tokens of several texts that pass through a network at a time


class NetworkStates:
    """The hidden states of texts behind the interface of generate/text_vectors.py.

    Args:
        network: of any architecture.
    """

    def __init__(self, network: Transformer) -> None:
        self.network = network

    @property
    def width(self) -> int:
        """See the interface."""
        return self.network.config.hidden_size

    @property
    def context(self) -> int | None:
        """See the interface."""
        return context_of(self.network)

    @torch.no_grad()
    def of_texts(self, texts: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """See the interface."""
        for group in encode_groups(self.network, texts):
            yield [(index, states.float().cpu().numpy()) for index, states in group]


def encode_texts(network: Transformer, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The last hidden states of each text, (tokens, E): of an encoder-decoder those of its encoder."""
    states: list[torch.Tensor] = [torch.empty(0)] * len(texts)
    for group in encode_groups(network, texts):
        for index, part in group:
            states[index] = part
    return states


def encode_groups(network: Transformer, texts: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, torch.Tensor]]]:
    """The same a row at a time, longest texts first: (index of the text, its states) of each text in the row.

    Texts are packed into flat rows without padding.
    """
    device = network.device
    read = network.encode if network.config.architecture == "encoder-decoder" else network.hidden_states
    for group in groups_by_length([len(text) for text in texts], ROW_TOKENS):
        sizes = [len(texts[index]) for index in group]
        ids = torch.tensor([token for index in group for token in texts[index]], device=device)[None]
        positions = torch.cat([torch.arange(size, device=device) for size in sizes])[None]
        segments = torch.arange(1, len(group) + 1, device=device).repeat_interleave(torch.tensor(sizes, device=device))
        hidden = read(ids, positions=positions, segments=segments[None])[0]
        yield list(zip(group, hidden.split(sizes), strict=True))


def context_of(network: Transformer) -> int | None:
    """Tokens that a text may have; None where positions are relative and never end, and in recurrent models."""
    endless = network.config.positions == "relative" or network.config.is_recurrent
    return None if endless else network.max_text_tokens
