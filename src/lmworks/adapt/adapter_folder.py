"""Adapters of any method <-> folders that ``peft`` loads, with a record of their base model.

What the folder has of every method: the head of a task, the name of the base and its fingerprint.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lmworks.adapt import peft_files
from lmworks.adapt.adapters import fingerprint
from lmworks.adapt.head_weights import load_head, saved_head
from lmworks.adapt.peft_files import PeftFiles
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, expand_home
from lmworks.base.json_file import read_object
from lmworks.base.sources import find, hub_name
from lmworks.families.family import Family
from lmworks.model.quant_types import QUANT_TYPES, QuantType
from lmworks.model.quantization import quantization_of
from lmworks.model.transformer import Transformer

BASE_FILE = "lmworks_base.json"  # a file of its own: peft refuses unknown keys in its two files
LANGUAGE_TASKS = {"decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}
"""PEFT's names of models with a language head; of an encoder it has none."""


def save(
    network: Transformer,
    folder: Path,
    family: Family,
    files: PeftFiles,
    peft_type: str,
    base_source: str = "",
    prefix: str = peft_files.PREFIX,
) -> None:
    """Write an adapter, and a record of its base model.

    Args:
        network: with the adapter.
        folder: created if it does not exist.
        family: gives the tensors' names.
        files: what the method saves.
        peft_type: PEFT's name of the method.
        base_source: how to find the base again: a hub name, a path, an alias.
        prefix: of the names of the head's tensors.
    """
    head = saved_head(network, family, prefix)
    config = {
        "peft_type": peft_type,
        "task_type": LANGUAGE_TASKS.get(network.config.architecture) if head is None else head.task_type,
        "base_model_name_or_path": hub_name(base_source) or None,
        "inference_mode": True,
        "modules_to_save": None if head is None else head.modules,
        **files.config,
    }
    peft_files.write(folder, config, {**({} if head is None else head.tensors), **files.tensors})
    described = {} if head is None else {"head": network.config.heads[0].model_dump()}
    write_base(network, folder, base_source, **described)


def write_base(network: Transformer, folder: Path, base_source: str, **described: Any) -> None:
    """Write the record of a base into a folder that needs it.

    Args:
        network: the base, with an adapter or without.
        folder: where to.
        base_source: how to find the base again.
        **described: further entries.
    """
    record: dict[str, Any] = {"base": base_source, "base_fingerprint": fingerprint(network), **described}
    if (quant_type := quantization_of(network)) is not None:
        record["base_quant_type"] = quant_type
    if base_source and Path(base_source).exists():
        record["base_from_here"] = os.path.relpath(Path(base_source).resolve(), folder.resolve())
    atomic_write(folder / BASE_FILE, json.dumps(record, indent=2) + "\n")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, ours or ``peft``'s."""
    return (folder / peft_files.CONFIG).is_file()


def needs_base(folder: Path) -> bool:
    """Whether a folder holds an adapter, or the prompt, of a model that lies elsewhere."""
    return is_adapter(folder) or ((folder / BASE_FILE).is_file() and not (folder / "config.json").is_file())


def read(network: Transformer, folder: Path, family: Family) -> PeftFiles:
    """Read an adapter that we or ``peft`` saved, and give its base the head that it has.

    Args:
        network: the base; its head is replaced if the adapter has one.
        folder: with adapter_config.json and adapter_model.safetensors.
        family: of the base.

    Returns:
        Its files, without the head.

    Raises:
        InputError: the files are damaged, or the head is none of this family.
    """
    files = PeftFiles(peft_files.read_config(folder), peft_files.read_tensors(folder), folder)
    of_head = load_head(network, family, files, _record(folder).get("head"))
    return replace(files, tensors={name: tensor for name, tensor in files.tensors.items() if name not in of_head})


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
    place, recorded = folder / peft_files.CONFIG, _record(folder).get("base")
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
    from_here = None if base else _record(folder).get("base_from_here")
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
    quant_type = _record(folder).get("base_quant_type")
    if quant_type in (None, *QUANT_TYPES):
        return quant_type
    fault = f"base_quant_type is {quant_type!r}"
    raise InputError(fault, str(folder / BASE_FILE), f"one of {', '.join(QUANT_TYPES)}; or save the adapter again")


def _record(folder: Path) -> dict[str, Any]:
    """The record of the base; empty if other software wrote the adapter."""
    path = folder / BASE_FILE
    return read_object(path, {})


def notes(network: nn.Module, folder: Path) -> list[str]:
    """What a user should know of an adapter on this base: whether it was trained on other weights."""
    record = _record(folder)
    if not record:
        return []
    if record.get("base_fingerprint") == fingerprint(network):
        return []
    return [
        f"it was made for a base with other weights ({record.get('base') or 'unnamed'}): "
        "another model of this shape, or the same one in another quantization"
    ]
