"""LoRA adapters of a network <-> folders that ``peft`` loads, with a record of their base model."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from torch import nn

from lmworks.adapt import peft_folder
from lmworks.adapt.adapters import adapters, fingerprint, refuse_second
from lmworks.adapt.head_weights import head_parameters, load_head, saved_head
from lmworks.adapt.low_rank import LoRALinear
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, expand_home
from lmworks.base.json_file import read_object
from lmworks.base.sources import find, hub_name
from lmworks.families.family import Family
from lmworks.model.surgery import named_linears, put
from lmworks.model.transformer import Transformer

BASE_FILE = "lmworks_base.json"  # a file of its own: peft refuses unknown keys in its two files


def save(network: Transformer, folder: Path | str, family: Family, base_source: str = "") -> None:
    """Write the adapter, and a record of its base model.

    Args:
        network: with LoRA adapters.
        folder: created if it does not exist.
        family: gives the tensors' names.
        base_source: how to find the base again: a hub name, a path, an alias.

    Raises:
        InputError: there is no adapter.
    """
    present = {name: module for name, module in adapters(network) if isinstance(module, LoRALinear)}
    if not present:
        raise InputError("this network has no adapter to save", hint="save the whole model")
    folder = Path(folder)
    factors = {
        name: peft_folder.Factors(module.lora_A.detach(), module.lora_B.detach(), module.scale)
        for name, module in present.items()
    }
    outputs = {
        name: int(module.out_features)  # type: ignore[arg-type]
        for name, module in named_linears(network)
        if not name.endswith(".base")
    }
    dropout = next(iter(present.values())).dropout
    head = saved_head(network, family)
    peft_folder.write(folder, factors, outputs, family, network.config, dropout, hub_name(base_source), head)
    record: dict[str, Any] = {"base": base_source, "base_fingerprint": fingerprint(network)}
    if head is not None:
        record["head"] = network.config.heads[0].model_dump()
    if base_source and Path(base_source).exists():
        record["base_from_here"] = os.path.relpath(Path(base_source).resolve(), folder.resolve())
    atomic_write(folder / BASE_FILE, json.dumps(record, indent=2) + "\n")


def load(network: Transformer, folder: Path | str, family: Family, trainable: bool = False) -> list[str]:
    """Put an adapter that we or ``peft`` saved on its base.

    Args:
        network: the base; changed in place and frozen.
        folder: with adapter_config.json and adapter_model.safetensors.
        family: of the base.
        trainable: whether its factors require a gradient.

    Returns:
        Notes for the user, for example that the base has other weights.

    Raises:
        InputError: the adapter is not for this model, or uses features that are not supported.
    """
    refuse_second(network)
    folder = Path(folder)
    config, tensors = peft_folder.read_lora_config(folder), peft_folder.read_tensors(folder)
    of_head = load_head(
        network, family, config, tensors, _record(folder).get("head"), str(folder / peft_folder.WEIGHTS)
    )
    rest = {name: tensor for name, tensor in tensors.items() if name not in of_head}
    factors = peft_folder.read(folder, family, network.config, rest, config)
    linears = dict(named_linears(network))
    network.requires_grad_(False)
    dropout = float(config.get("lora_dropout") or 0.0)
    wrapped = {name: _wrapped(name, linears[name], own, dropout, folder) for name, own in factors.items()}
    for parameter in head_parameters(network).values():
        parameter.requires_grad_(trainable)
    for name, module in wrapped.items():
        module.lora_A.requires_grad_(trainable)
        module.lora_B.requires_grad_(trainable)
        put(network, name, module.train(network.training))
    return _notes(network, folder)


def _wrapped(name: str, linear: nn.Module, factors: peft_folder.Factors, dropout: float, folder: Path) -> LoRALinear:
    """A linear with the low-rank factors of a file."""
    shape, expected = (len(factors.b), factors.a.shape[1]), (linear.out_features, linear.in_features)
    if shape != expected:
        raise InputError(
            f"the adapter's {name} is {shape}, the model's {expected}",
            str(folder),
            "load the adapter onto the base that it was trained on",
        )
    module = LoRALinear(linear, len(factors.a), factors.scale, dropout)
    module.lora_A.data.copy_(factors.a)
    module.lora_B.data.copy_(factors.b)
    return module


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
    place = folder / peft_folder.CONFIG
    named = str(base) if base else peft_folder.read_config(folder).get("base_model_name_or_path")
    recorded = _record(folder).get("base")
    if isinstance(recorded, str) and recorded and named == hub_name(recorded):
        named = recorded
    hint = "name it: --base FOLDER (in Python base=...), or write its path there as base_model_name_or_path"
    if not isinstance(named, str) or not named:
        fault = f"base_model_name_or_path is {named!r}: it names no base"
        raise InputError(fault, str(place), hint)
    from_here = None if base else _record(folder).get("base_from_here")
    for path in [folder / named, expand_home(named), *([folder / from_here] if from_here else [])]:
        if path.is_file() or (path / "config.json").is_file() or (path / peft_folder.CONFIG).is_file():
            if path.resolve() == folder.resolve():
                raise InputError(f"the adapter names itself as its base ({named})", str(place), hint)
            return str(path)
    source = f"hub:{named}" if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", named) and not Path(named).exists() else named
    try:
        find(source, "model", offline)
    except InputError as error:
        raise InputError(f"its base {named!r} cannot be opened: {error.fault}", str(place), hint) from error
    return source


def _record(folder: Path) -> dict[str, Any]:
    """The record of the base; empty if other software wrote the adapter."""
    path = folder / BASE_FILE
    return read_object(path, {})


def _notes(network: nn.Module, folder: Path) -> list[str]:
    record = _record(folder)
    if not record:
        return []
    if record.get("base_fingerprint") == fingerprint(network):
        return []
    return [
        f"the adapter was trained on a base with other weights ({record.get('base') or 'unnamed'}): "
        "another model of this shape, or the same one in another quantization"
    ]
