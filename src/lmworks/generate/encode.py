"""Hidden states of whole texts, read without padding; how many tokens a text may have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lmworks.model.transformer import Transformer

ROW_TOKENS = 1024  # tokens of several texts that pass through a network at a time


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
    for group in _groups([len(text) for text in texts]):
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


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Indices of texts, those of similar lengths together, as many as a row holds."""
    groups: list[list[int]] = []
    free_tokens = 0
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if not groups or sizes[index] > free_tokens:
            groups.append([])
            free_tokens = ROW_TOKENS
        groups[-1].append(index)
        free_tokens -= sizes[index]
    return groups
