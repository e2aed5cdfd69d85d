"""Put adapters on a network, switch them off, merge them, keep and load them.

Knows the network's modules by name only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from lmworks.adapt import peft_folder
from lmworks.adapt.lora import LoRALinear
from lmworks.adapt.settings import ALL_LINEAR, LoRASettings, targeted
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.families.family import Family
from lmworks.model.surgery import named_linears, put
from lmworks.model.transformer import Transformer

BASE_FILE = "lmworks_base.json"  # beside peft's two files, which may hold no keys that peft does not know


@dataclass(frozen=True)
class Loaded:
    """What loading an adapter did: the modules it sits on, and what a person should know about it."""

    modules: list[str]
    notes: list[str] = field(default_factory=list)


def attach(network: nn.Module, settings: LoRASettings, seed: int = 0) -> list[str]:
    """Freeze a network and put a low-rank update beside every linear that the targets mean.

    Args:
        network: changed in place.
        settings: rank, scale, dropout and targets.
        seed: of A's start. Each module's start follows from the seed and its name alone.

    Returns:
        The dotted names of the adapted linears.

    Raises:
        InputError: a target means no linear, or there is an adapter already.
    """
    if next(adapters(network), None) is not None:
        raise InputError("this network has an adapter already", hint="merge or detach it first")
    names = meant_by(network, settings)
    network.requires_grad_(False)
    for name in names:
        generator = torch.Generator().manual_seed(_seed_of(name, seed))
        module = network.get_submodule(name)
        put(network, name, LoRALinear(module, settings.rank, settings.scale, settings.dropout, generator))
    return names


def meant_by(network: nn.Module, settings: LoRASettings) -> list[str]:
    """The dotted names of the linears that the targets mean.

    Raises:
        InputError: a target means none.
    """
    names = [name for name, _ in named_linears(network)]
    for target in settings.targets:
        if not any(targeted(name, target) for name in names):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
            fault = f"{target!r} means no linear of this network"
            raise InputError(fault, "lora.targets", f"{ALL_LINEAR}, or: {known}")
    return [name for name in names if any(targeted(name, target) for target in settings.targets)]


def adapters(network: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Dotted name (the wrapped linear's) and module of every adapter."""
    for name, module in network.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def trainable_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """What training changes, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


@contextmanager
def disabled(network: nn.Module) -> Iterator[None]:
    """Within this block the network is its base, exactly: adapters are not computed, merged ones are taken out."""
    before = [(module, module.enabled, module.merged) for _, module in adapters(network)]
    for module, _, _ in before:
        module.enabled = False
        module.unmerge()
    try:
        yield
    finally:
        for module, enabled, merged in before:
            module.enabled = enabled
            if merged:
                module.merge()


def merge(network: nn.Module) -> int:
    """Add every update to its base's weight for good: plain linears again, same results. Gives how many there were."""
    found = list(adapters(network))
    for name, module in found:
        module.merge()
        put(network, name, module.base)
    return len(found)


@contextmanager
def merged(network: Transformer) -> Iterator[Transformer]:
    """Within this block every adapter is part of its base's weight and its module is gone, as in a plain model."""
    found = [(name, module, module.merged) for name, module in adapters(network)]
    for name, module, _ in found:
        module.merge()
        put(network, name, module.base)
    try:
        yield network
    finally:
        for name, module, before in found:
            put(network, name, module)
            if not before:
                module.unmerge()


def detach(network: nn.Module) -> int:
    """Take the adapters off: the base is there again, bit for bit. Gives how many there were."""
    found = list(adapters(network))
    for name, module in found:
        module.unmerge()
        put(network, name, module.base)
    return len(found)


def save_adapter(network: Transformer, folder: Path | str, family: Family, base_source: str = "") -> None:
    """Write the adapter as a folder that ``peft`` loads, and beside it which base it was trained on.

    Args:
        network: with adapters.
        folder: made if it is not there.
        family: whose names the tensors shall have.
        base_source: how to find the base again: a hub name, a path, an alias.
    """
    found = dict(adapters(network))
    if not found:
        raise InputError("this network has no adapter to save", hint="save the whole model")
    folder = Path(folder)
    factors = {
        name: peft_folder.Factors(module.lora_A.detach(), module.lora_B.detach(), module.scale)
        for name, module in found.items()
    }
    outputs = {
        name: int(module.out_features)  # type: ignore[arg-type]
        for name, module in named_linears(network)
        if not name.endswith(".base")
    }
    dropout = next(iter(found.values())).dropout
    peft_folder.write(folder, factors, outputs, family, network.config, dropout, base_source)
    kept = {"base": base_source, "base_fingerprint": fingerprint(network)}
    atomic_write(folder / BASE_FILE, json.dumps(kept, indent=2) + "\n")


def load_adapter(network: Transformer, folder: Path | str, family: Family, trainable: bool = False) -> Loaded:
    """Put an adapter that we or ``peft`` saved on its base.

    Args:
        network: the base; changed in place and frozen.
        folder: with adapter_config.json and adapter_model.safetensors.
        family: of the base.
        trainable: whether its factors are to be trained on.

    Raises:
        InputError: the adapter is not for this model, or asks for what is not computed here.
    """
    if next(adapters(network), None) is not None:
        raise InputError("this network has an adapter already", hint="merge or detach it first")
    folder = Path(folder)
    factors, told = peft_folder.read(folder, family, network.config)
    linears = dict(named_linears(network))
    network.requires_grad_(False)
    wrapped = {}
    for name, one in factors.items():
        module = linears[name]
        shape = (len(one.b), one.a.shape[1])
        if shape != (module.out_features, module.in_features):
            raise InputError(
                f"the adapter's {name} is {shape}, the model's {(module.out_features, module.in_features)}",
                str(folder),
                "load the adapter onto the base that it was trained on",
            )
        wrapped[name] = LoRALinear(module, len(one.a), one.scale, float(told.get("lora_dropout") or 0.0))
        wrapped[name].lora_A.data.copy_(one.a)
        wrapped[name].lora_B.data.copy_(one.b)
        wrapped[name].lora_A.requires_grad_(trainable)
        wrapped[name].lora_B.requires_grad_(trainable)
        wrapped[name].train(network.training)
    for name, adapter in wrapped.items():
        put(network, name, adapter)
    return Loaded(list(wrapped), _notes(network, folder))


def fingerprint(network: nn.Module) -> str:
    """A short hash of a few of each of the base's weights; the same in float32 and bfloat16, adapted or not."""
    hashed = hashlib.sha256()
    for name, tensor in sorted((name.replace(".base.", "."), tensor) for name, tensor in _base_tensors(network)):
        flat = tensor.detach().flatten()
        some = flat[:: max(len(flat) // 16, 1)][:16].to(device="cpu", dtype=torch.bfloat16)
        hashed.update(f"{name} {tuple(tensor.shape)}".encode() + some.view(torch.int16).numpy().tobytes())
    return hashed.hexdigest()[:16]


def _base_tensors(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in network.named_parameters():
        if name.rpartition(".")[2] not in ("lora_A", "lora_B"):
            yield name, parameter


def _notes(network: nn.Module, folder: Path) -> list[str]:
    path = folder / BASE_FILE
    if not path.exists():
        return []
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept.get("base_fingerprint") == fingerprint(network):
        return []
    return [
        f"the adapter was trained on a base with other weights ({kept.get('base') or 'unnamed'}): "
        "another model of this shape, or the same one in another quantization"
    ]


def _seed_of(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") >> 1
