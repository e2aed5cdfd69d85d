"""Several heads on one backbone: a network that has them all, and views of it with one head each.

A view is a network of its own whose modules are those of the whole one, but for the heads: what trains the whole one,
or puts adapters into its blocks, changes every view made afterwards. So each task has the network of Hugging Face's
class with its head, and there is one backbone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn

from lmworks.model.config import ModelConfig
from lmworks.model.heads import Heads
from lmworks.model.linear import Linear
from lmworks.model.transformer import Transformer


def with_heads(network: Transformer, views: Mapping[str, Transformer]) -> Transformer:
    """A network with the heads of several views of it, by their names, in place of its own.

    Args:
        network: the backbone; not changed.
        views: by name, a network with one head on this backbone.
    """
    heads = {name: view.config.heads[0] for name, view in views.items()}
    configs = tuple(head.model_copy(update={"name": name}) for name, head in heads.items())
    poolers = [view.pooler for view in views.values() if view.config.pooler and view.pooler is not None]
    base = next(iter(views.values())).config
    whole = copied(network)
    whole.config = base.model_copy(update={"heads": configs, "language_head": False, "pooler": bool(poolers)})
    _leave_language_head(whole)
    whole.pooler = poolers[0] if poolers else None
    whole.heads = _named(whole.config, {name: view.heads[heads[name].name] for name, view in views.items()})
    return whole


def with_one_head(network: Transformer, name: str, config: ModelConfig) -> Transformer:
    """A view of a network with several heads: the network of the class that has one of them.

    Args:
        network: of :func:`with_heads`.
        name: of the head in it.
        config: of the class; its one head has the name that the class's family gives it.
    """
    view = copied(network)
    view.config = config
    view.pooler = network.pooler if config.pooler else None
    view.heads = _named(config, {config.heads[0].name: network.heads[name]})
    return view


def with_language_head(network: Transformer, donor: Transformer) -> Transformer:
    """A view of a network with the language head of another one, for instance of the model that it was tuned from.

    The head's matrix is the donor's own even where it is tied to embeddings that were trained since.

    Args:
        network: with whatever heads; not changed.
        donor: with a language head, and a backbone of the same sizes.
    """
    view, config = copied(network), donor.config
    heads = {"language_head": True, "heads": config.heads, "pooler": config.pooler}
    view.config = network.config.model_copy(update={**heads, "tie_word_embeddings": config.tie_word_embeddings})
    view.head_transform, view.head_bias, view.lm_head = donor.head_transform, donor.head_bias, donor.lm_head
    view.pooler, view.heads = donor.pooler, donor.heads
    if donor.lm_head is None and isinstance(donor.embed_tokens, nn.Embedding):
        rows, width = donor.embed_tokens.weight.shape
        view.lm_head = Linear(width, rows, bias=False, device="meta")
        view.lm_head.weight = donor.embed_tokens.weight
        view.config = view.config.model_copy(update={"tie_word_embeddings": False})
    return view


def copied(network: Transformer) -> Transformer:
    """Another network of the same modules, in which modules may be replaced."""
    view = copy.copy(network)
    view._modules, view._parameters = dict(network._modules), dict(network._parameters)
    return view


def _leave_language_head(network: Transformer) -> None:
    network.lm_head = network.head_transform = network.head_bias = None


def _named(config: ModelConfig, modules: Mapping[str, nn.Module]) -> Heads:
    heads = Heads(config.model_copy(update={"heads": ()}))
    heads.update(modules)
    heads.configs = {head.name: head for head in config.heads}
    return heads
