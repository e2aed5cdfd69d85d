"""Bottleneck adapters on disk. PEFT has no such method, so only the layout of the folder is PEFT's: its two files, its
names of modules, and a head in ``modules_to_save``. ``peft`` itself does not open it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch

from lmworks.adapt.peft_files import PREFIX, PeftFiles, check_complete, our_linears, suffixes, written_module
from lmworks.base.errors import InputError
from lmworks.families.family import Family
from lmworks.families.mapping import their_place
from lmworks.kernels.activations import ACTIVATIONS
from lmworks.model.config import ModelConfig

TENSOR_NAME = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.bottleneck_(?P<layer>down|up)\.(?P<kind>weight|bias)")
READ_KEYS = {"activation", "target_modules"}
KINDS: dict[str, tuple[type, ...]] = {"activation": (str,), "target_modules": (list,)}


class BottleneckWeights(NamedTuple):
    """Weights and biases of the two layers: (r, out), (r,), (out, r), (out,)."""

    down: torch.Tensor
    down_bias: torch.Tensor
    up: torch.Tensor
    up_bias: torch.Tensor


NAMES = ("down.weight", "down.bias", "up.weight", "up.bias")


def to_files(
    weights: Mapping[str, BottleneckWeights], linears: list[str], activation: str, family: Family, config: ModelConfig
) -> PeftFiles:
    """The files of an adapter.

    Args:
        weights: by our module names.
        linears: our names of all linears of the network.
        activation: between the two layers.
        family: gives the tensors' names.
        config: of the network.

    Raises:
        InputError: the format has no place for one of them.
    """
    rows = family.table(config)
    theirs = {}
    for name in linears:
        place = their_place(rows, name)
        if place is not None and place.count == 1:
            theirs[name] = written_module(place.module, family, config)
    tensors = {}
    for name, own in weights.items():
        if name not in theirs:
            raise InputError(
                f"the format has no place for an adapter on {name}", hint="train this model by --method lora"
            )
        for label, tensor in zip(NAMES, own, strict=True):
            tensors[f"{PREFIX}{theirs[name]}.bottleneck_{label}"] = tensor
    adapted = {theirs[name] for name in weights}
    return PeftFiles({"activation": activation, "target_modules": suffixes(adapted, set(theirs.values()))}, tensors)


def read(files: PeftFiles, family: Family, config: ModelConfig) -> dict[str, BottleneckWeights]:
    """An adapter's layers by our module names.

    Args:
        files: of the adapter.
        family: of the base.
        config: of the base, with the adapter's head.

    Raises:
        InputError: it does not match this model, or a tensor is missing or unexpected.
    """
    files.check(KINDS, READ_KEYS)
    if files.config.get("activation") not in ACTIVATIONS:
        fault = f"activation {files.config.get('activation')!r} is not computed here"
        raise InputError(fault, files.config_path, f"one of: {', '.join(ACTIVATIONS)}")
    rows, place = family.table(config), files.weights_path
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in files.tensors.items():
        match = TENSOR_NAME.fullmatch(key)
        if match is None:
            raise InputError(f"unexpected tensor {key}", place, "fetch or save the adapter again")
        (name,) = our_linears(match["module"], rows, family, files)
        found.setdefault(name, {})[f"{match['layer']}.{match['kind']}"] = tensor.float()
    for name, tensors in found.items():
        if missing := [label for label in NAMES if label not in tensors]:
            fault = f"the adapter of {name} lacks {', '.join(missing)}"
            raise InputError(fault, place, "fetch or save the adapter again")
    if not found:
        raise InputError("the adapter holds no tensors", place, "save the adapter again")
    check_complete(files, set(found), rows)
    return {name: BottleneckWeights(*(tensors[label] for label in NAMES)) for name, tensors in found.items()}
