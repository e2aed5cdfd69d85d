"""LoRA adapters as the native engine takes them: which it computes, and their factors as arrays. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lmworks.adapt import lora_files
from lmworks.adapt.adapter_base import record_in
from lmworks.adapt.peft_files import PeftFiles, read_arrays, read_config
from lmworks.base.errors import InputError
from lmworks.model.config import ModelConfig

if TYPE_CHECKING:
    from lmworks.families.family import Family

LINEAR = re.compile(r"layers\.(?P<layer>\d+)\.(?:self_attn|mlp)\.(?P<name>[qkvo]_proj|gate_proj|up_proj|down_proj)")
WITH_TORCH = "open it with PyTorch: lmworks.load(ADAPTER), or --backend torch"
NOT_PLAIN = {
    "use_dora": "it has magnitudes of rows (DoRA)",
    "modules_to_save": "it has whole modules, such as a head",
    "trainable_token_indices": "it has rows of its own for tokens",
}
"""Keys of adapter_config.json, and what an adapter is where they are set."""


class NotComputed(InputError):
    """An adapter that the native engine does not compute; PyTorch may."""


class Update(NamedTuple):
    """A low-rank update of a linear, y += b (a x), as Engine.add_adapter reads it.

    Attributes:
        layer: its number.
        name: of the linear, such as q_proj.
        a: (rank, in) float32.
        b: (out, rank) float32, with the scale in it.
    """

    layer: int
    name: str
    a: np.ndarray
    b: np.ndarray


def check_computed(folder: Path) -> None:
    """Check that the adapter in a folder consists of updates of linears alone, as far as its config says.

    Raises:
        NotComputed: it has more.
        InputError: its config cannot be read.
    """
    config, record = read_config(folder), record_in(folder)
    reasons = [text for key, text in NOT_PLAIN.items() if config.get(key)]
    if config.get("peft_type") != "LORA":
        reasons.append(f"its type is {config.get('peft_type')}, not LORA")
    if config.get("bias", "none") != "none":
        reasons.append("it has biases")
    if record.get("head"):
        reasons.append("it has the head of a task")
    if record.get("base_quant_type"):
        reasons.append(f"its base is quantized to {record['base_quant_type']}")
    if reasons:
        raise NotComputed(f"the native engine does not compute this adapter: {reasons[0]}", str(folder), WITH_TORCH)


def read_updates(folder: Path, family: Family, config: ModelConfig) -> list[Update]:
    """The updates of the adapter in a folder, one of those that :func:`check_computed` accepts.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        family: of the base.
        config: of the base.

    Raises:
        NotComputed: it updates another linear than those of the layers.
        InputError: the files are damaged, or not of an adapter for this model.
    """
    updates = []
    for name, factors in lora_files.read(
        PeftFiles(read_config(folder), read_arrays(folder), folder), family, config
    ).items():
        match = LINEAR.fullmatch(name)
        if match is None:
            raise NotComputed(f"the native engine computes no updates of {name}", str(folder), WITH_TORCH)
        a, b = np.ascontiguousarray(factors.a), np.ascontiguousarray(factors.b * np.float32(factors.scale))
        updates.append(Update(int(match["layer"]), match["name"], a, b))
    return updates
