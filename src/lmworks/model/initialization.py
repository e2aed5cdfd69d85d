"""Initialization of a new model's weights as published, by ``config.initialization``; new heads on an opened one.

normal     N(0, initializer_range) for every matrix and embedding.
truncated  the same, truncated at two standard deviations (BERT: Devlin et al. 2018, as their code has it).
gpt2       normal; matrices whose output is added to the residual stream are divided by the root of their number
           (Radford et al. 2019, section 2.3).
xavier     matrices uniform in +-sqrt(6 / (inputs + outputs)) (Glorot & Bengio 2010, eq. 16), embeddings N(0,
           width^-0.5), so that embeddings scaled by the root of their width have unit variance (Vaswani et al. 2017,
           section 3.4).
t5         N(0, fan-in^-0.5) for each matrix, an untied head included; q_proj also divided by the root of the head size,
           because T5 does not scale its scores; embeddings N(0, 1) (Raffel et al. 2020, as in Mesh TensorFlow).

Norms start at 1 and biases at 0 everywhere. xavier and t5 do not use initializer_range.

Recurrent cells and convolutions, whatever the scheme: uniform in +-fan-in^-0.5, as PyTorch has them (fan-in of both
matrices of a cell: hidden_size); the forget gate of an lstm starts with a bias of 1, so that its state is kept at first
(Gers et al. 2000; Jozefowicz et al. 2015).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from lmworks.model.config import ModelConfig
from lmworks.model.heads import Heads
from lmworks.model.linear import Linear
from lmworks.model.norm import LayerNorm, OffsetRMSNorm, RMSNorm
from lmworks.model.relative import RelativeBias
from lmworks.model.transformer import Stack, Transformer

RESIDUAL = ("o_proj", "down_proj")  # the matrices whose outputs are added to the residual


def draw(network: Transformer, generator: torch.Generator | None = None) -> None:
    """Initialize every weight as ``network.config.initialization`` says.

    Args:
        network: changed in place, on any device and in any precision.
        generator: on the CPU, so that one seed gives the same weights on every device; None: torch's own.
    """
    config = network.config
    writes: dict[Stack, int] = {network: network.depth * (3 if network.encoder is not None else 2)}
    if network.encoder is not None:
        writes[network.encoder] = network.encoder.depth * 2
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, RMSNorm | LayerNorm):
                module.weight.fill_(0.0 if isinstance(module, OffsetRMSNorm) else 1.0)
            elif isinstance(module, nn.Linear | nn.Embedding):
                values = torch.empty(module.weight.shape, dtype=torch.float32, device="cpu")
                stack = network.encoder if name.startswith("encoder.") else network
                _fill(values, module, name, config, writes[stack or network], generator)
                module.weight.copy_(values)
            elif isinstance(module, nn.RNNBase | nn.Conv1d):
                _fill_plain(module, generator)
            if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
                bias.zero_()
        if network.head_bias is not None:
            network.head_bias.zero_()


def _fill(
    values: torch.Tensor,
    module: nn.Linear | nn.Embedding,
    name: str,
    config: ModelConfig,
    writes: int,
    generator: torch.Generator | None,
) -> None:
    """Draw one matrix (outputs, inputs) or embedding (rows, width)."""
    scheme, std = config.initialization, config.initializer_range
    if scheme == "xavier" and isinstance(module, nn.Linear) and name != "lm_head":
        nn.init.xavier_uniform_(values, generator=generator)
        return
    if scheme == "truncated":
        nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std, generator=generator)
        return
    if scheme == "gpt2" and name.endswith(RESIDUAL):
        std /= math.sqrt(writes)
    elif scheme == "xavier":
        std = values.shape[1] ** -0.5 if not isinstance(module, RelativeBias) else config.hidden_size**-0.5
    elif scheme == "t5":
        std = _t5(module, name, config)
    nn.init.normal_(values, std=std, generator=generator)


def _fill_plain(module: nn.RNNBase | nn.Conv1d, generator: torch.Generator | None) -> None:
    """Draw a recurrent cell or a group of filters."""
    for name, weight in module.named_parameters():
        if name.startswith("bias"):
            weight.zero_()
            continue
        bound = weight[0].numel() ** -0.5
        values = torch.empty(weight.shape, dtype=torch.float32, device="cpu")
        weight.copy_(values.uniform_(-bound, bound, generator=generator))
    if isinstance(module, nn.LSTM):
        size = module.hidden_size  # the gates stand in the order input, forget, cell, output
        module.get_parameter("bias_ih_l0")[size : 2 * size] = 1.0


def _t5(module: nn.Linear | nn.Embedding, name: str, config: ModelConfig) -> float:
    if isinstance(module, RelativeBias):
        return config.hidden_size**-0.5
    if isinstance(module, nn.Embedding):
        return 1.0
    inputs = module.in_features
    return (inputs * config.head_size) ** -0.5 if name.endswith("q_proj") else inputs**-0.5


def replace_heads(network: Transformer, config: ModelConfig, generator: torch.Generator) -> None:
    """Give a network the heads of another config in place of its own, the language head included. Where the config is
    of an encoder alone, the decoder of an encoder-decoder is taken away.

    Heads of the same name and config keep their weights; new linears are drawn from a normal distribution with the
    config's ``initializer_range``, biases are zero. A new pooler is drawn likewise.

    Args:
        network: a Transformer; changed in place.
        config: its config with other ``heads``, ``language_head``, ``pooler`` and ``architecture``.
        generator: of the new weights.
    """
    kept = {name: module for name, module in network.heads.items() if config.head(name) == module.config}
    if network.encoder is not None and config.architecture == "encoder":
        network.keep_encoder()
    network.config, network.heads = config, Heads(config)
    network.heads.update(kept)
    fresh: list[nn.Module] = [module for name, module in network.heads.items() if name not in kept]
    if not config.language_head:
        network.lm_head = network.head_transform = network.head_bias = None
    if not config.pooler:
        network.pooler = None
    elif network.pooler is None:
        network.pooler = Linear(config.hidden_size, config.hidden_size)
        fresh.append(network.pooler)
    with torch.no_grad():
        for linear in (part for module in fresh for part in module.modules() if isinstance(part, nn.Linear)):
            linear.weight.normal_(0.0, config.initializer_range, generator=generator)
            if linear.bias is not None:
                linear.bias.zero_()
    for module in fresh:
        module.train(network.training).to(network.device)
