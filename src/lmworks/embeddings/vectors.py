"""Vectors of many texts: by length, with the fastest matrix products of this machine, and their files.

Imports no torch where the native engine computes.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.evaluate import progress
from lmworks.families.sentence_pooling import SentencePooling
from lmworks.generate.native_states import NativeStates
from lmworks.generate.text_vectors import HiddenStates, Pooling, pooled_vectors, pooling_of, text_ids

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel
    from lmworks.language_model.native_encoder import NativeEncoder

MEASURED_TOKENS = 20_000  # fewer are read sooner than matrix products are measured


@dataclass(frozen=True)
class Vectors:
    """Vectors of texts, and how they were made.

    Attributes:
        matrix: (n, E) float32, a row for each text in the order given.
        pooling: how a text's states became its vector.
        tokens: read in all, special tokens among them.
        cut: how many texts were longer than ``limit`` tokens and cut there.
        limit: most tokens of a text; None where the model has no such limit.
        seconds: that it took.
    """

    matrix: np.ndarray
    pooling: SentencePooling
    tokens: int
    cut: int
    limit: int | None
    seconds: float


def embed_texts(
    model: LanguageModel | NativeEncoder,
    texts: Sequence[str],
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    max_tokens: int | None = None,
) -> Vectors:
    """Vectors of texts with any model; progress goes to a listener of evaluate/progress.

    Args:
        model: opened.
        texts: in any order: they are read by length.
        pooling, normalize: as ``model.embed``.
        max_tokens: longer texts are cut; default: what a sentence encoder's folder says, else the model's context.

    Raises:
        InputError: there is no text, one has no token, or ``pooling`` is "none".
    """
    if pooling == "none":
        raise InputError("texts have unequal numbers of tokens", "pooling", "take mean, cls or last")
    if not texts:
        raise InputError("there is no text", "texts", "give at least one")
    states, sentence_pooling = model.text_states(), pooling_of(pooling, normalize, model.pooling)
    limit = max_tokens or sentence_pooling.max_tokens or states.context
    started = time.perf_counter()
    ids, cut = text_ids(states.context, model.tokenizer, texts, sentence_pooling, limit)
    tokens = sum(map(len, ids))
    with _fastest_products(states, tokens):
        progress.begin("texts", len(ids))
        matrix = pooled_vectors(states, ids, sentence_pooling, progress.report)
    return Vectors(matrix, sentence_pooling, tokens, cut, limit, time.perf_counter() - started)


def _fastest_products(states: HiddenStates, tokens: int) -> AbstractContextManager[None]:
    """A network on a CPU multiplies many tokens by what is fastest on this machine, which is measured for it."""
    if isinstance(states, NativeStates) or tokens < MEASURED_TOKENS:
        return nullcontext()
    from lmworks.generate.encode import NetworkStates
    from lmworks.kernels import matmul
    from lmworks.train.arithmetic import evaluation_providers

    assert isinstance(states, NetworkStates)
    on_cpu = states.network.device.type == "cpu"
    return matmul.providers(evaluation_providers(states.network)) if on_cpu else nullcontext()


def check_path(path: str | Path) -> Path:
    """A path for vectors, by its ending.

    Raises:
        InputError: it is neither .npy nor .parquet.
    """
    path = Path(path)
    if path.suffix not in (".npy", ".parquet"):
        hint = "name it F.npy (numpy.load reads it) or F.parquet (with text and place of each row)"
        raise InputError(f"{path.name} is neither .npy nor .parquet", "--out", hint)
    return path


def write_embeddings(
    path: str | Path, vectors: Vectors, texts: Sequence[str], places: Sequence[str], about: dict[str, Any]
) -> Path:
    """Write vectors wholly or not at all.

    ``.npy``: the matrix. ``.parquet``: the columns text, place and vector (a list of E float32); ``about`` stands as
    JSON in the file's metadata under ``lmworks``.

    Raises:
        InputError: another ending, or the place cannot be written.
    """
    path, content = check_path(path), io.BytesIO()
    if path.suffix == ".npy":
        np.save(content, vectors.matrix, allow_pickle=False)
    else:
        import pyarrow
        from pyarrow import parquet

        flat = pyarrow.array(vectors.matrix.reshape(-1))
        column = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.matrix.shape[1])
        table = pyarrow.table({"text": list(texts), "place": list(places), "vector": column})
        table = table.replace_schema_metadata({"lmworks": json.dumps(about, ensure_ascii=False)})
        parquet.write_table(table, content)
    atomic_write(path, content.getvalue())
    return path
