"""The base of an adapter: what the adapter's folder says of it, and where it is. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.adapt import peft_files
from lmworks.base.errors import InputError
from lmworks.base.files import expand_home
from lmworks.base.json_file import read_object
from lmworks.base.sources import find, hub_name
from lmworks.model.quant_types import QUANT_TYPES, QuantType

BASE_FILE = "lmworks_base.json"  # a file of its own: peft refuses unknown keys in its two files
DEFAULT = "default"
"""The name of the adapter that a model was opened with, as in PEFT."""
ALIKE = 0.5  # cosine between weights: nearly 1 after rounding and further training, nearly 0 of different models


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, ours or ``peft``'s."""
    return (folder / peft_files.CONFIG).is_file()


def needs_base(folder: Path) -> bool:
    """Whether a folder holds an adapter, or the prompt, of a model that lies elsewhere."""
    return is_adapter(folder) or ((folder / BASE_FILE).is_file() and not (folder / "config.json").is_file())


def record_in(folder: Path) -> dict[str, Any]:
    """The record of the base; empty if other software wrote the adapter."""
    return read_object(folder / BASE_FILE, {})


def base_of(folder: Path, base: str | Path | None = None, offline: bool | None = None) -> str:
    """The source of the model that an adapter was trained on.

    A path in ``base_model_name_or_path`` may be absolute, or relative to the adapter's folder or the working directory;
    ``owner/name`` means the hub, as for ``peft``. Our adapters also record the source as the user named it, which may
    be an alias that has other places than the hub, and the path of the base relative to their own
    folder, so that both can be moved together.

    Args:
        folder: the adapter's.
        base: the source that the user named; it takes precedence.
        offline: fetch nothing; default: as LMWORKS_OFFLINE says.

    Raises:
        InputError: no base is named, or it cannot be found.
    """
    record = record_in(folder)
    place, recorded = folder / peft_files.CONFIG, record.get("base")
    named: Any = str(base) if base else recorded
    if not is_adapter(folder):
        place = folder / BASE_FILE
    elif not base:
        named = peft_files.read_config(folder).get("base_model_name_or_path")
    if isinstance(recorded, str) and recorded and named == hub_name(recorded):
        named = recorded
    hint = "name it: --base FOLDER (in Python base=...), or write its path there as base_model_name_or_path"
    if not isinstance(named, str) or not named:
        fault = f"base_model_name_or_path is {named!r}: it names no base"
        raise InputError(fault, str(place), hint)
    from_here = None if base else record.get("base_from_here")
    for path in [folder / named, expand_home(named), *([folder / from_here] if from_here else [])]:
        if path.is_file() or (path / "config.json").is_file() or (path / peft_files.CONFIG).is_file():
            if path.resolve() == folder.resolve():
                raise InputError(f"the adapter names itself as its base ({named})", str(place), hint)
            return str(path)
    source = f"hub:{named}" if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", named) and not Path(named).exists() else named
    try:
        find(source, "model", offline)
    except InputError as error:
        raise InputError(f"its base {named!r} cannot be opened: {error.fault}", str(place), hint) from error
    return source


def base_quant_type(folder: Path) -> QuantType | None:
    """The type to which the linears of its base were quantized when an adapter was trained; None: they were not.

    Raises:
        InputError: the record names no type that is known here.
    """
    quant_type = record_in(folder).get("base_quant_type")
    if quant_type in (None, *QUANT_TYPES):
        return quant_type
    fault = f"base_quant_type is {quant_type!r}"
    raise InputError(fault, str(folder / BASE_FILE), f"one of {', '.join(QUANT_TYPES)}; or save the adapter again")


def check_base(folder: Path, sample: Sequence[float]) -> None:
    """Refuse an adapter that was made for another model, as far as the adapter's record says.

    The same model in another quantization, or trained further, is another base with alike weights: of that
    :func:`base_notes` says a word.

    Args:
        folder: the adapter's.
        sample: of the base's weights (adapters.weight_sample).

    Raises:
        InputError: the weights are not alike, or what is recorded of them is no list of numbers.
    """
    record = record_in(folder)
    try:
        recorded = np.array(record.get("base_sample", []), np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        fault = "base_sample is no list of numbers"
        raise InputError(fault, str(folder / BASE_FILE), "save the adapter again, or leave base_sample out") from error
    own = np.array(sample, np.float64)
    if recorded.shape != own.shape:  # what has other shapes is refused by those
        return
    if recorded @ own < ALIKE * np.linalg.norm(recorded) * np.linalg.norm(own):
        named = record.get("base") or "unnamed"
        fault = f"the adapter was made for another model ({named}): this base has other weights"
        hint = "load it onto the model that it was made for: --base FOLDER (in Python base=...)"
        raise InputError(fault, str(folder), hint)


def base_notes(folder: Path, fingerprint: str) -> list[str]:
    """What a user should know of an adapter on a base of this fingerprint: whether it was trained on other weights."""
    record = record_in(folder)
    if not record or record.get("base_fingerprint") == fingerprint:
        return []
    return [
        f"it was made for a base with other weights ({record.get('base') or 'unnamed'}): "
        "another model of this shape, or the same one in another quantization"
    ]
