"""Vectors of texts from a network's last hidden states; generate/text_vectors.py has what depends on no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from lmworks.families.sentence_pooling import SentencePooling
from lmworks.generate import text_vectors
from lmworks.generate.encode import NetworkStates, context_of
from lmworks.generate.text_vectors import Pooling
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer


def embed(
    network: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    own: SentencePooling | None = None,
    max_tokens: int | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Vectors of texts: the last hidden states, of an encoder-decoder those of its encoder.

    Arguments, result and errors are those of text_vectors.embed; the network may be of any architecture.
    """
    states = NetworkStates(network)
    return as_tensors(text_vectors.embed(states, tokenizer, texts, pooling, normalize, own, max_tokens))


def as_tensors(vectors: np.ndarray | list[np.ndarray]) -> torch.Tensor | list[torch.Tensor]:
    """The same numbers in PyTorch."""
    if isinstance(vectors, list):
        return [torch.from_numpy(array) for array in vectors]
    return torch.from_numpy(vectors)


def text_ids(
    network: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    way: SentencePooling,
    max_tokens: int | None = None,
) -> tuple[list[list[int]], int]:
    """Token ids of each text, and how many texts were cut; see text_vectors.text_ids."""
    return text_vectors.text_ids(context_of(network), tokenizer, texts, way, max_tokens)


def vectors_of(
    network: Transformer,
    ids: Sequence[Sequence[int]],
    way: SentencePooling,
    report: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """(n, k E) float32 vectors of texts that are token ids, with k poolings; see text_vectors.pooled_vectors."""
    return text_vectors.pooled_vectors(NetworkStates(network), ids, way, report)
