"""A new head on a model that lacks the one that a task needs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch

from lmworks.base.seeds import derived_seed
from lmworks.language_model.model import LanguageModel
from lmworks.model.config import ModelConfig
from lmworks.model.head_requests import HeadRequest
from lmworks.model.head_views import copied, with_heads
from lmworks.model.initialization import replace_heads
from lmworks.model.transformer import Transformer


def give_head(model: LanguageModel, request: HeadRequest, seed: int) -> bool:
    """Give a model the head that a task needs, in place of its language head; its own is kept where it is that one.

    Args:
        model: changed in place.
        request: the head.
        seed: of the weights of a new head.

    Returns:
        Whether the head is new.

    Raises:
        InputError: the model's family has no class with such a head.
    """
    if request.is_met_by(model.config.head(request.name)):
        return False
    config = model.family.with_head(model.config, request)
    replace_heads(model.network, config, torch.Generator().manual_seed(derived_seed(seed, request.name)))
    model.pooling = None
    if config.architecture == "decoder" and model.has_tokenizer and model.hf_config.get("pad_token_id") is None:
        # transformers finds the last token of each text of a batch by the padding after it
        if model.tokenizer.pad_id is None:
            model.tokenizer.pad_id = model.tokenizer.eos_id
        model.hf_config = {**model.hf_config, "pad_token_id": model.tokenizer.pad_id}
    return True


def give_heads(
    model: LanguageModel, requests: Mapping[str, HeadRequest], seed: int
) -> tuple[dict[str, ModelConfig], bool]:
    """Give a model the heads of several tasks, in place of its own; each new one is drawn from a seed of its own.

    Args:
        model: changed in place: its network then has a head of each name.
        requests: by name, the head.
        seed: of the weights of new heads.

    Returns:
        By name, the config of the class with this head alone (model/head_views); and whether any head is new.

    Raises:
        InputError: the model's family has no class with such a head.
    """
    network, pooler, has_new = model.network, model.network.pooler, False
    views: dict[str, Transformer] = {}
    for name, request in requests.items():
        view = copied(network)
        view.pooler = pooler  # of all heads that read it
        part = replace(model, network=view)
        if give_head(part, request, derived_seed(seed, name)):
            has_new = True
        else:  # the model's own, which another task may want too
            view.heads = copy.deepcopy(view.heads)
        pooler = pooler if view.pooler is None else view.pooler
        model.hf_config, views[name] = part.hf_config, view
    model.network, model.pooling = with_heads(network, views), None
    return {name: view.config for name, view in views.items()}, has_new
