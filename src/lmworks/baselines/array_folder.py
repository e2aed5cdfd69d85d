"""What models without a network have on the disk: config.json with their model_type, beside model.safetensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lmworks.base.errors import InputError
from lmworks.base.json_file import check_kinds, read_object

CONFIG, WEIGHTS = "config.json", "model.safetensors"
REPAIR = "fetch or train the model again"

Arrays = dict[str, np.ndarray]


def has_model_type(folder: Path, model_type: str) -> bool:
    """Whether a folder holds a model of this type, by its config.json."""
    try:
        return read_object(folder / CONFIG, {}).get("model_type") == model_type
    except InputError:
        return False


def read_config(
    folder: Path, model_type: str, kinds: Mapping[str, tuple[type, ...]], required: Iterable[str]
) -> dict[str, Any]:
    """The config of a model.

    Args:
        folder: of the model.
        model_type: what the config must say it is.
        kinds: the types of its values.
        required: names that must have a value.

    Raises:
        InputError: it is missing, damaged, or of another model.
    """
    place = str(folder / CONFIG)
    config = read_object(folder / CONFIG)
    if config.get("model_type") != model_type:
        raise InputError(f"model_type is {config.get('model_type')!r}, not {model_type!r}", place, REPAIR)
    check_kinds(config, kinds, place)
    if missing := [name for name in required if config.get(name) is None]:
        raise InputError(f"{missing[0]} is missing", place, REPAIR)
    return config


def read_arrays(folder: Path) -> Arrays:
    """The arrays of a model.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = folder / WEIGHTS
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"not a whole safetensors file: {error}", str(path), REPAIR) from error
