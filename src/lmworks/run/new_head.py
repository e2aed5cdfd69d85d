"""A new head on a model that lacks the one that a task needs."""

from __future__ import annotations

import torch

from lmworks.base.seeds import derived_seed
from lmworks.language_model.model import LanguageModel
from lmworks.model.initialization import replace_heads
from lmworks.model.task_heads import HeadRequest


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
