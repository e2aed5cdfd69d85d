"""What the fused passes of a block read and save: its parameters, seeds of dropout, activations, packed sequences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch

from lmworks.kernels.dropout import draw_seed
from lmworks.model.block_parts import BlockSettings, NormParameters, NormStatistics
from lmworks.model.linear_parameters import TENSORS, LinearConstants, LinearParameters, OptionalTensor, draw_seeds
from lmworks.model.virtual_tokens import ExpandedRows


class BlockParameters(NamedTuple):
    """A block's parameters; gate_proj is empty where the feed-forward is not gated."""

    norm1: NormParameters
    norm2: NormParameters
    q_proj: LinearParameters
    k_proj: LinearParameters
    v_proj: LinearParameters
    o_proj: LinearParameters
    gate_proj: LinearParameters
    up_proj: LinearParameters
    down_proj: LinearParameters

    @classmethod
    def unflatten(cls, tensors: Sequence[Any], constants: Sequence[LinearConstants]) -> BlockParameters:
        """Inverse of :meth:`flatten`."""
        norm1, norm2 = (NormParameters(tensors[place], tensors[place + 1], place) for place in (0, 2))
        places = range(4, 4 + TENSORS * len(constants), TENSORS)
        linears = [LinearParameters.at(place, tensors, own) for place, own in zip(places, constants, strict=True)]
        return cls(norm1, norm2, *linears)

    def flatten(self) -> list[OptionalTensor]:
        """A list of all tensors, as the arguments of an autograd function."""
        return [*self.norm1[:2], *self.norm2[:2]] + [x for linear in self.linears for x in linear.tensors]

    @property
    def linears(self) -> tuple[LinearParameters, ...]:
        """All linears, in the order of their tensors."""
        return (*self.qkv, self.o_proj, self.gate_proj, self.up_proj, self.down_proj)

    @property
    def qkv(self) -> tuple[LinearParameters, ...]:
        """The linears that read the first norm's output."""
        return self.q_proj, self.k_proj, self.v_proj

    @property
    def gate_and_up(self) -> tuple[LinearParameters, ...]:
        """The linears that read the second norm's output."""
        return (self.gate_proj, self.up_proj) if self.gate_proj.exists else (self.up_proj,)


class Seeds(NamedTuple):
    """Seeds of all dropouts of a block, in the order in which block.Block draws them; 0: no dropout."""

    qkv: list[int]
    attention: int
    o_proj: list[int]
    residual1: int
    gate_and_up: list[int]
    activation: int
    down_proj: list[int]
    residual2: int

    @classmethod
    def draw(cls, settings: BlockSettings, block: BlockParameters) -> Seeds:
        """From torch's generator."""
        return cls(
            qkv=draw_seeds(block.qkv),
            attention=_seed(settings.attention_dropout),
            o_proj=draw_seeds([block.o_proj]),
            residual1=_seed(settings.hidden_dropout),
            gate_and_up=draw_seeds(block.gate_and_up),
            activation=_seed(settings.mlp_dropout),
            down_proj=draw_seeds([block.down_proj]),
            residual2=_seed(settings.hidden_dropout),
        )


class SavedActivations(NamedTuple):
    """Tensors saved for the backward pass, each (tokens, ...); ``terms_*`` are those of the adapters of these
    linears."""

    x: torch.Tensor
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    attention: torch.Tensor
    log_sum: torch.Tensor  # of each query's softmax
    sum1: torch.Tensor  # residuals: before norm1 in a post-norm block, before norm2 in a pre-norm one
    mean1: OptionalTensor
    scale1: OptionalTensor
    gate: OptionalTensor
    up: torch.Tensor
    sum2: OptionalTensor  # before norm2 in a post-norm block
    mean2: OptionalTensor
    scale2: OptionalTensor
    terms_qkv: tuple[torch.Tensor, ...] = ()
    terms_o: tuple[torch.Tensor, ...] = ()
    terms_up: tuple[torch.Tensor, ...] = ()
    terms_down: tuple[torch.Tensor, ...] = ()

    def flatten(self) -> list[OptionalTensor]:
        """A list of all tensors."""
        return [*self[: -len(self.terms)], *(tensor for terms in self.terms for tensor in terms)]  # type: ignore[list-item]

    @property
    def terms(self) -> tuple[tuple[torch.Tensor, ...], ...]:
        """``terms_*``, the last fields."""
        return self.terms_qkv, self.terms_o, self.terms_up, self.terms_down

    @property
    def counts(self) -> list[int]:
        """Number of tensors of each of ``terms_*``."""
        return list(map(len, self.terms))

    @classmethod
    def unflatten(cls, tensors: Sequence[Any], counts: Sequence[int]) -> SavedActivations:
        """Inverse of :meth:`flatten`."""
        begin = len(tensors) - sum(counts)
        rest = iter(tensors[begin:])
        return cls(*tensors[:begin], *(tuple(islice(rest, count)) for count in counts))

    def cast(self, dtype: torch.dtype) -> SavedActivations:
        """With the tensors of :data:`LARGE` in another precision; statistics and the LoRA terms' stay as they are."""
        large: dict[str, Any] = {name: getattr(self, name) for name in LARGE}
        cast: dict[str, Any] = {name: None if tensor is None else tensor.to(dtype) for name, tensor in large.items()}
        return self._replace(**cast)

    @property
    def norm1(self) -> NormStatistics:
        """Statistics of the first norm's input."""
        return NormStatistics(self.mean1, self.scale1)

    @property
    def norm2(self) -> NormStatistics:
        """Statistics of the second norm's input."""
        return NormStatistics(self.mean2, self.scale2)


LARGE = ("x", "q", "k", "v", "attention", "sum1", "gate", "up", "sum2")  # of SavedActivations: as wide as the model


class PackedSequences(NamedTuple):
    """``cu_seqlens`` of queries and keys; the rotary cosines and sines (tokens, R/2), None without rotary positions;
    and with a prefix the rows with virtual tokens, whose ``cu_seqlens`` they are."""

    cu_seqlens: tuple[torch.Tensor, torch.Tensor]
    cos_sin: tuple[torch.Tensor, ...] | None
    rows: ExpandedRows | None = None


def _seed(rate: float) -> int:
    return draw_seed() if rate else 0
