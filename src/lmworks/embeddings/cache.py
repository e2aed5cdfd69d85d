"""Vectors of texts kept in the cache: made once for the same texts, model and pooling."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, cache_folder
from lmworks.embeddings.vectors import Vectors, embed_texts
from lmworks.generate.text_vectors import Pooling, pooling_of
from lmworks.model.storage import BlockStorage
from lmworks.model.stored_layers import stored_layers
from lmworks.train.identity import add_to_hash

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel

MAX_FILES = 30  # the oldest are deleted
LAYOUT = 1  # of a key's parts


def cached_vectors(
    model: LanguageModel,
    texts: Sequence[str],
    pooling: Pooling | None = None,
    normalize: bool | None = True,
    max_tokens: int | None = None,
) -> tuple[np.ndarray, Vectors | None]:
    """(n, E) vectors of texts; and how they were made, or None where the cache had them.

    The key is a hash of the texts, the model's weights and tokenizer, pooling and limit. Arguments and errors as
    :func:`lmworks.embeddings.vectors.embed_texts`.
    """
    path = cache_folder() / "vectors" / f"{_key(model, texts, pooling, normalize, max_tokens)}.npy"
    matrix = _read(path, len(texts))
    if matrix is not None:
        return matrix, None
    vectors = embed_texts(model, texts, pooling, normalize, max_tokens)
    content = io.BytesIO()
    np.save(content, vectors.matrix, allow_pickle=False)
    with contextlib.suppress(OSError, InputError):  # where the cache cannot be written, they are made again
        atomic_write(path, content.getvalue())
        files = sorted(path.parent.glob("*.npy"), key=lambda file: file.stat().st_mtime)
        for file in files[:-MAX_FILES]:
            file.unlink()
    return vectors.matrix, vectors


def _read(path: Path, rows: int) -> np.ndarray | None:
    """The matrix in a file of the cache, which then counts as new; None where it is not there or damaged."""
    try:
        matrix = np.load(path, allow_pickle=False)
        path.touch()
    except (OSError, ValueError, EOFError):
        return None
    return matrix if matrix.ndim == 2 and len(matrix) == rows else None


def _key(
    model: LanguageModel,
    texts: Sequence[str],
    pooling: Pooling | None,
    normalize: bool | None,
    max_tokens: int | None,
) -> str:
    sentence_pooling = pooling_of(pooling, normalize, model.pooling)
    digest = hashlib.sha256()
    config = model.config.model_dump(mode="json")
    add_to_hash(
        digest, [LAYOUT, config, model.tokenizer.core.to_str(), repr(sentence_pooling), max_tokens, list(texts)]
    )
    for name, weight in _weights(model.network):
        add_to_hash(digest, [name, weight])
    return digest.hexdigest()[:32]


def _weights(network: torch.nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    """All weights, stored ones as they are stored."""
    yield from network.state_dict().items()
    for name, layer in stored_layers(network):
        storage = layer.storage
        yield name, storage.blocks if isinstance(storage, BlockStorage) else storage.dequantized()
