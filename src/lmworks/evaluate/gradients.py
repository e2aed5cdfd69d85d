"""How far a gradient reaches: back through the tokens of a text, and down through the layers of a deep network.

By distance: the norm of d loss_T / d x_t, where loss_T is that of the token after position T and x_t the embedding of
the token at t. In a recurrent network it is a product of T - t Jacobians and shrinks or grows exponentially with the
distance (Hochreiter 1991; Bengio, Simard & Frasconi 1994, theorem 4); an LSTM's state is carried on by a sum
(Hochreiter & Schmidhuber 1997), and attention joins any two tokens directly.

By depth: the norm of d loss / d h_l in a plain network h_(l+1) = act(W h_l), at initialization (Glorot & Bengio 2010,
sections 3 and 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lmworks.base.errors import InputError
from lmworks.generate.encode import context_of
from lmworks.kernels.activations import ACTIVATIONS
from lmworks.model.transformer import Transformer

INITIALIZATIONS = ("uniform", "xavier", "he")
CLASSES = 10  # outputs of the plain network
SMALLEST = 1e-30  # norms below it are rounding, and left out of a slope


def norms_by_distance(network: Transformer, ids: torch.Tensor) -> list[float]:
    """Norm of the gradient of the last token's loss with respect to the embedding of each token before it.

    Args:
        network: a decoder.
        ids: (B, T + 1); the last token of each row is the one that is predicted.

    Returns:
        T norms by distance: 0 is the token from which the next one is predicted. Means over the rows.

    Raises:
        InputError: the network is no decoder with a language head, or the rows are longer than its context.
    """
    config, length = network.config, ids.shape[1] - 1
    if config.architecture != "decoder" or not config.language_head:
        hint = "give decoders: rnn-small, lstm-small, llama-1m, or a model that writes texts"
        raise InputError(
            "the gradient of a next token is that of a language model that reads from left to right", "", hint
        )
    context = context_of(network)
    if context is not None and length > context:
        raise InputError(f"{length} tokens; the context is {context}", "--length", f"--length {context}")
    ids = ids.to(network.device)
    weight = network.embed_tokens(ids[:, :-1])
    embeddings = weight.detach().float().requires_grad_()
    with torch.enable_grad():
        hidden = network.hidden_states(embeddings=embeddings.to(weight.dtype))[:, -1]
        loss = functional.cross_entropy(network.head(hidden).float(), ids[:, -1], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, embeddings)
    norms = gradient.double().norm(dim=-1).mean(0)
    return [float(norm) for norm in norms.flip(0)]


def norms_by_depth(
    activation: str, depth: int, width: int = 256, rows: int = 256, initialization: str = "xavier", seed: int = 0
) -> list[float]:
    """Norm of the gradient of the loss with respect to the output of each layer of a plain network, lowest first.

    Args:
        activation: a key of ``kernels.activations.ACTIVATIONS``.
        depth: layers, all of the same width; the last is followed by a linear of ten classes.
        width: units of a layer.
        rows: inputs, drawn from N(0, 1), each with a random class.
        initialization: "uniform": +-fan-in^-0.5 (Glorot & Bengio 2010, eq. 1); "xavier": their eq. 16; "he": N(0, 2 /
            fan-in) (He et al. 2015, eq. 10). Biases are 0.
        seed: of weights, inputs and classes.

    Raises:
        InputError: there is no such activation or initialization.
    """
    for name, choices, place in (
        (activation, tuple(ACTIVATIONS), "--activations"),
        (initialization, INITIALIZATIONS, "--initialization"),
    ):
        if name not in choices:
            raise InputError(f"there is no {name!r}", place, f"one of: {', '.join(choices)}")
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, width, generator=generator)
    classes = torch.randint(CLASSES, (rows,), generator=generator)
    outputs, x = [], inputs.requires_grad_()
    for _ in range(depth):
        x = ACTIVATIONS[activation](x @ _matrix(width, width, initialization, generator).t())
        outputs.append(x)
    logits = x @ _matrix(CLASSES, width, initialization, generator).t()
    gradients = torch.autograd.grad(functional.cross_entropy(logits, classes), outputs)
    return [float(gradient.double().norm()) for gradient in gradients]


def _matrix(outputs: int, inputs: int, initialization: str, generator: torch.Generator) -> torch.Tensor:
    weight = torch.empty(outputs, inputs)
    if initialization == "he":
        return weight.normal_(std=math.sqrt(2 / inputs), generator=generator)
    if initialization == "xavier":
        return nn.init.xavier_uniform_(weight, generator=generator)
    return weight.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)


def factor_of_a_step(norms: Sequence[float]) -> float:
    """By how much the norm is multiplied from one place to the next, on average: the slope of its logarithm by least
    squares, without the first place; NaN with fewer than two norms that are not zero."""
    places = [place for place, norm in enumerate(norms) if place and norm > SMALLEST]
    if len(places) < 2:
        return math.nan
    slope = np.polyfit(places, np.log([norms[place] for place in places]), 1)[0]
    return float(np.exp(slope))
