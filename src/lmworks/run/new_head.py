"""A new head on a model that lacks the one that a task needs."""

from __future__ import annotations

import torch

from lmworks.base.seeds import derived_seed
from lmworks.families.task_heads import HeadRequest
from lmworks.language_model.model import LanguageModel
from lmworks.model.config import HeadConfig
from lmworks.model.initialization import replace_heads


def has_head(config_head: HeadConfig | None, request: HeadRequest) -> bool:
    """Whether a head is the one that a task needs: of the same problem, with all its labels."""
    if config_head is None or config_head.problem != request.problem:
        return False
    if request.labels:
        return set(request.labels) <= set(config_head.labels)
    return config_head.size == request.size


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
    if has_head(model.config.head(request.name), request):
        return False
    config = model.family.with_head(model.config, request)
    replace_heads(model.network, config, torch.Generator().manual_seed(derived_seed(seed, request.name)))
    model.pooling = None
    if config.architecture == "decoder" and model.has_tokenizer and model.hf_config.get("pad_token_id") is None:
        # transformers finds the last token of each text of a batch by the padding after it
        pad = model.tokenizer.pad_id if model.tokenizer.pad_id is not None else model.tokenizer.eos_id
        model.hf_config = {**model.hf_config, "pad_token_id": pad}
    return True
