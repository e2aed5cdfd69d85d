"""Adapters of any method <-> folders that ``peft`` loads, with a record of their base model.

What the folder has of every method: the head of a task, the name of the base and its fingerprint. Reading what it says
of the base takes no network: adapt/adapter_base.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lmworks.adapt import adapter_base, peft_files
from lmworks.adapt.adapter_base import BASE_FILE
from lmworks.adapt.adapters import fingerprint, weight_sample
from lmworks.adapt.head_weights import load_head, saved_head
from lmworks.adapt.peft_files import PeftFiles
from lmworks.base.files import atomic_write
from lmworks.base.sources import hub_name
from lmworks.families.family import Family
from lmworks.model.quantization import quantization_of
from lmworks.model.transformer import Transformer

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
    record["base_sample"] = weight_sample(network)
    if (quant_type := quantization_of(network)) is not None:
        record["base_quant_type"] = quant_type
    if base_source and Path(base_source).exists():
        record["base_from_here"] = os.path.relpath(Path(base_source).resolve(), folder.resolve())
    atomic_write(folder / BASE_FILE, json.dumps(record, indent=2) + "\n")


def read(network: Transformer, folder: Path, family: Family) -> PeftFiles:
    """Read an adapter that we or ``peft`` saved, and give its base the head that it has.

    Args:
        network: the base; its head is replaced if the adapter has one.
        folder: with adapter_config.json and adapter_model.safetensors.
        family: of the base.

    Returns:
        Its files, without the head.

    Raises:
        InputError: the files are damaged, the head is none of this family, or the adapter was made for another model.
    """
    files = PeftFiles(peft_files.read_config(folder), peft_files.read_tensors(folder), folder)
    of_head = load_head(network, family, files, adapter_base.record_in(folder).get("head"))
    adapter_base.check_base(
        folder, weight_sample(network)
    )  # some heads leave only the base's encoder, as when it was saved
    return replace(files, tensors={name: tensor for name, tensor in files.tensors.items() if name not in of_head})


def notes(network: nn.Module, folder: Path) -> list[str]:
    """What a user should know of an adapter on this base: whether it was trained on other weights."""
    return adapter_base.base_notes(folder, fingerprint(network))
