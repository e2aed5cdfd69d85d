"""The head of a task in an adapter's folder: PEFT keeps it whole beside the factors, under ``modules_to_save``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from lmworks.adapt.peft_files import PREFIX, PROMPT_PREFIX, PeftFiles
from lmworks.base.errors import InputError
from lmworks.families.family import Family
from lmworks.families.mapping import Rename
from lmworks.model.config import HeadConfig, ProblemType
from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS, HeadRequest
from lmworks.model.initialization import replace_heads
from lmworks.model.transformer import Transformer

TASK_TYPES = {SEQUENCE: "SEQ_CLS", TOKENS: "TOKEN_CLS", SPANS: "QUESTION_ANS"}
MODULES_TO_SAVE = ".modules_to_save."  # in names of tensors that some versions of PEFT write


class SavedHead(NamedTuple):
    """The head of a network as PEFT keeps it.

    Attributes:
        task_type: PEFT's name of the kind of model.
        modules: names of the modules that are kept whole.
        tensors: their tensors by their names in the file.
    """

    task_type: str
    modules: list[str]
    tensors: dict[str, torch.Tensor]


def head_parameters(network: Transformer) -> dict[str, nn.Parameter]:
    """The parameters of a task's head by our names, with those of the pooler that it reads; none of a model with a
    language head, whose heads belong to its pretraining."""
    if network.config.language_head:
        return {}
    parts = ["heads."] + ["pooler."] * any(head.kind == "pooled" for head in network.config.heads)
    return {name: parameter for name, parameter in network.named_parameters() if name.startswith(tuple(parts))}


def saved_head(network: Transformer, family: Family, prefix: str = PREFIX) -> SavedHead | None:
    """The head of a network as PEFT keeps it, with ``prefix`` before the names of tensors; None if it has no head of a
    task."""
    config = network.config
    layout, parameters = family.layout(config), head_parameters(network)
    if layout is None or not parameters:
        return None
    tensors = {prefix + theirs: parameters[ours].detach().contiguous() for ours, theirs in _names(family, network)}
    modules = {name.partition(".")[0] for name in (layout.linear, layout.dense) if name}
    if any(name.startswith("pooler.") for name in parameters):
        modules.add("pooler")
    return SavedHead(TASK_TYPES[config.heads[0].name], sorted(modules), tensors)


def load_head(network: Transformer, family: Family, files: PeftFiles, head: Mapping[str, Any] | None) -> set[str]:
    """Give a network the head of an adapter, which replaces its language head.

    Args:
        network: the adapter's base; changed in place.
        family: of the base.
        files: of the adapter.
        head: the head's config, as a folder of ours records it; without it the labels have no names.

    Returns:
        Names of the tensors that were read.

    Raises:
        InputError: ``modules_to_save`` holds what is no head of a model of this family.
    """
    adapter_config, tensors, place = files.config, files.tensors, files.weights_path
    if not adapter_config.get("modules_to_save"):
        return set()
    kinds = {task_type: name for name, task_type in TASK_TYPES.items()}
    name = kinds.get(str(adapter_config.get("task_type")))
    stored = {_module_name(key): key for key in tensors}
    layout = family.heads.get(name) if name else None
    if name is None or layout is None or f"{layout.linear}.weight" not in stored:
        listed = ", ".join(map(str, adapter_config["modules_to_save"]))
        if layout is not None:
            fault = f"modules_to_save ({listed}): the file lacks {layout.linear}.weight, the weights of the head"
            raise InputError(fault, place, "copy or save the adapter again: its head was left out")
        fault = f"modules_to_save ({listed}) changes the result and is not computed here"
        raise InputError(fault, place, "merge it into its base with peft, and load that")
    if head is not None:
        config = HeadConfig.model_validate(head)
        request = HeadRequest(config.name, config.size, config.problem, config.labels)
    else:
        size = len(tensors[stored[f"{layout.linear}.weight"]])
        problem: ProblemType = "span" if name == SPANS else "single_label"
        if name == SEQUENCE and size == 1:
            problem = "regression"
        request = HeadRequest(name, size, problem, ())
    replace_heads(network, family.with_head(network.config, request), torch.Generator())
    read = set()
    parameters = head_parameters(network)
    for ours, theirs in _names(family, network):
        key = next((stored[other] for other in (theirs, theirs.removeprefix(family.prefix)) if other in stored), None)
        if key is None and ours.startswith("pooler."):  # PEFT keeps the base's pooler
            continue
        if key is None or tensors[key].shape != parameters[ours].shape:
            raise InputError(f"{theirs} is missing or has another shape", place, "save the adapter again")
        with torch.no_grad():
            parameters[ours].copy_(tensors[key])
        read.add(key)
    return read


def _module_name(key: str) -> str:
    """The name of a tensor in their model, for its name in the file."""
    name = key.replace(MODULES_TO_SAVE, ".")
    return name.removeprefix(PREFIX if name.startswith(PREFIX) else PROMPT_PREFIX)


def _names(family: Family, network: Transformer) -> list[tuple[str, str]]:
    """Our names of the head's parameters, each with its name in their model."""
    parameters, config = head_parameters(network), network.config
    return [
        (row.ours, family.written_name(row.theirs, config))
        for row in family.table(config)
        if isinstance(row, Rename) and row.ours in parameters
    ]
