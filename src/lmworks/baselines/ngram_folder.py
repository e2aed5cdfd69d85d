"""The files of an n-gram model: config.json and model.safetensors; what is read is checked before it is used.

Arrays, of a vocabulary of V and an order of n: ``unigrams`` (V,) float64, and for each length k from 2 to n ``keys.k``
(N_k,) int64, ``probabilities.k`` (N_k,) float64 and ``backoffs.k`` (N_(k-1),) float64, where N_1 is V. Their meaning
stands in baselines/ngram.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, check_disk_space
from lmworks.baselines.array_folder import (
    CONFIG,
    REPAIR,
    WEIGHTS,
    Arrays,
    has_model_type,
    read_arrays,
    read_config,
)
from lmworks.baselines.kneser_ney import check_settings

MODEL_TYPE = "lmworks-ngram"
KINDS: dict[str, tuple[type, ...]] = {
    "order": (int,),
    "vocab_size": (int,),
    "smoothing": (str,),
    "discount": (float,),
    "discounts": (list,),
    "bos_token_id": (int,),
    "eos_token_id": (int,),
}
REQUIRED = ("order", "vocab_size", "smoothing", "discount", "discounts")


def is_ngram(folder: Path) -> bool:
    """Whether a folder holds an n-gram model, by its config.json."""
    return has_model_type(folder, MODEL_TYPE)


def write(folder: Path, config: dict[str, Any], arrays: Arrays) -> None:
    """Write both files.

    Raises:
        InputError: no room, or the folder cannot be written.
    """
    check_disk_space(folder, sum(array.nbytes for array in arrays.values()), "the n-gram model")
    atomic_write(folder / WEIGHTS, save(arrays, metadata={"format": "np"}))
    atomic_write(folder / CONFIG, json.dumps({"model_type": MODEL_TYPE, **config}, indent=2) + "\n")


def read(folder: Path, most_order: int) -> tuple[dict[str, Any], Arrays]:
    """The config and the arrays.

    Raises:
        InputError: a file is missing or damaged, or they do not fit together.
    """
    place = str(folder / CONFIG)
    config = read_config(folder, MODEL_TYPE, KINDS, REQUIRED)
    try:
        check_settings(config["order"], config["vocab_size"], config["smoothing"], config["discount"], most_order)
    except InputError as error:
        raise InputError(f"{error.place} {error.fault}", place, REPAIR) from error
    for name in ("bos_token_id", "eos_token_id"):
        if not 0 <= (config.get(name) or 0) < config["vocab_size"]:
            raise InputError(f"{name} is no id of the vocabulary", place, REPAIR)
    arrays = read_arrays(folder)
    _check_arrays(arrays, config["order"], config["vocab_size"], str(folder / WEIGHTS))
    return config, arrays


def _check_arrays(arrays: Arrays, order: int, vocab_size: int, place: str) -> None:
    """Raise if an array is missing, or holds what no n-gram model has."""
    contexts = vocab_size
    _check_floats(arrays, "unigrams", contexts, place)
    for length in range(2, order + 1):
        keys = _array(arrays, f"keys.{length}", np.dtype(np.int64), None, place)
        if len(keys) and not (np.all(keys[1:] > keys[:-1]) and keys[0] >= 0 and keys[-1] < contexts * vocab_size):
            raise InputError(f"keys.{length} are not sorted, or name contexts that there are not", place, REPAIR)
        _check_floats(arrays, f"probabilities.{length}", len(keys), place)
        _check_floats(arrays, f"backoffs.{length}", contexts, place)
        contexts = len(keys)


def _check_floats(arrays: Arrays, name: str, size: int, place: str) -> None:
    values = _array(arrays, name, np.dtype(np.float64), size, place)
    if len(values) and not (values.min() >= 0 and values.max() <= 1 + 1e-9):  # false for NaN too
        raise InputError(f"{name} are not all between 0 and 1", place, REPAIR)


def _array(arrays: Arrays, name: str, dtype: np.dtype, size: int | None, place: str) -> np.ndarray:
    if name not in arrays:
        raise InputError(f"{name} is missing", place, REPAIR)
    array = arrays[name]
    if array.dtype != dtype or array.ndim != 1 or (size is not None and len(array) != size):
        expected = f"{dtype} of {'one dimension' if size is None else f'shape ({size},)'}"
        raise InputError(f"{name} is {array.dtype} of shape {array.shape}, not {expected}", place, REPAIR)
    return array
