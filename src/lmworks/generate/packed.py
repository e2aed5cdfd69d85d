"""Linears with weights packed for fast decoding of one token at a time. For inference only: they cannot be trained.

For one new token, each matrix is multiplied by a single row, so memory bandwidth limits the speed: fewer bytes of
weights, more tokens per second.

- Weights of a Q4_1 or Q4_0 file have sixteen equidistant values in each group. Their storage has these values; for
  weights that were converted to float32, they are computed again. The weights are packed in four bits without further
  rounding; scales, and the matmuls of single rows, are bfloat16. The head is packed in float16.
- In a bfloat16 network, PyTorch's matmul of a single row reads weights far below the memory bandwidth; oneDNN's packed
  layout does not.

Independent of file formats: packing depends on the values of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lmworks.model.linear import PLAIN_LINEARS
from lmworks.model.storage import BlockStorage, DenseStorage, WeightStorage
from lmworks.model.stored_layers import StoredLinear, product, stored_layers
from lmworks.model.surgery import put
from lmworks.model.transformer import Transformer

GROUP = 32  # weights with one scale in llama.cpp's four-bit formats
HIGHEST_LEVEL = 15
FEW_ROWS = 4  # of more rows the plain matmul, which reads weights once for all of them, is faster
SHARED_INPUT = (
    ("q_proj", "k_proj", "v_proj"),
    ("o_proj",),
    ("gate_proj", "up_proj"),
    ("up_proj",),
    ("down_proj",),
    ("base",),
)
"""Names of linears that read the same input; base: of an adapter that was not merged."""
FourBitGroups = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
LATTICE_ERROR = 2e-3  # of a group's range: the rounding of scales to half width, far below a four-bit step (1 / 15)


class PackedLinear(nn.Module):
    """A frozen linear whose bfloat16 weight lies in oneDNN's own layout.

    Args:
        weight: (out_features, in_features).
        bias: (out_features,) or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        # a hidden attribute, not a buffer: the packed layout has no strides that a state_dict could carry
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16().contiguous(), 1)
        self._bias = None if bias is None else bias.detach().bfloat16()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")


class FourBits(nn.Module):
    """Frozen float32 linears that read the same input, as one: four bits per weight where few rows come, the plain
    weights where many do.

    Args:
        linears: linears of equal in_features; kept for many rows.
        groups: of each: levels, steps and smallest values, as :func:`four_bit_groups` gives them.
    """

    def __init__(self, linears: Sequence[nn.Linear | StoredLinear], groups: list[FourBitGroups]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(linears)
        levels, scales, lowest = (torch.cat(parts) for parts in zip(*groups, strict=True))
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
        # the kernel's weight is (level - 8) * scale + zero, with scale and zero as (groups, out_features, 2)
        pairs = torch.stack((scales, lowest + 8 * scales), dim=-1)
        self._pairs = pairs.transpose(0, 1).contiguous().bfloat16()
        self._sizes = [linear.out_features for linear in linears]
        # what was read last and what it gave, in a list: a module's own attributes are slow to set
        self._last: list[Any] = [None, ()]

    def outputs(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Each linear's output for x (..., in_features), a few rows; computed once while x is the same tensor."""
        last = self._last
        if last[0] is not x:
            half = x.reshape(-1, x.shape[-1]).bfloat16()
            y = torch.ops.aten._weight_int4pack_mm_for_cpu(half, self._packed, GROUP, self._pairs)
            last[:] = x, y.to(x.dtype).view(*x.shape[:-1], -1).split_with_sizes(self._sizes, -1)
        return last[1]


class FourBitLinear(nn.Module):
    """One of the linears that :class:`FourBits` joins, in its old place."""

    def __init__(self, joined: FourBits, index: int) -> None:
        super().__init__()
        self.joined, self.index = joined, index
        self.plain: nn.Linear | StoredLinear = joined.linears[index]  # type: ignore[assignment]
        self.in_features, self.out_features = self.plain.in_features, self.plain.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() > FEW_ROWS * self.in_features:
            return self.plain(x)
        y = self.joined.outputs(x)[self.index]
        return y if self.plain.bias is None else y + self.plain.bias


class HalfHead(nn.Module):
    """A frozen head whose weights are float16 and whose sums are float32, in FBGEMM's layout; logits are float32.

    Args:
        head: the plain head, or None where it is tied.
        weight: (V, E), below float16's largest number, as any trained head is.
        storage: of the same matrix, for many rows; None: the weight itself is kept for these.
    """

    def __init__(self, head: nn.Module | None, weight: torch.Tensor, storage: WeightStorage | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.plain = head
        self._storage = storage or DenseStorage(weight.detach().float())
        bias = None if head is None else getattr(head, "bias", None)
        self._bias = None if bias is None else bias.detach().float()
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight.detach().float(), self._bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() // self.in_features > FEW_ROWS:
            return product(x.float(), self._storage, self._bias)
        return torch.ops.quantized.linear_dynamic_fp16(x.float(), self._packed)


def four_bit_groups(weight: torch.Tensor) -> FourBitGroups | None:
    """Levels, steps and smallest values of the sixteen equidistant values of each group; None where a group has others.

    Args:
        weight: (out_features, in_features) float32.

    Returns:
        levels (out_features, in_features) int32 in 0..15, and step and smallest value of each group, both
        (out_features, in_features / 32): weight = level * step + smallest.
    """
    if weight.dtype != torch.float32 or weight.shape[1] % GROUP or weight.shape[0] % 16:
        return None
    groups = weight.detach().view(weight.shape[0], -1, GROUP)
    lowest, highest = groups.amin(-1), groups.amax(-1)
    scales = (highest - lowest) / HIGHEST_LEVEL
    levels = ((groups - lowest[..., None]) / scales.clamp_min(1e-30)[..., None]).round_()
    error = torch.addcmul(lowest[..., None], levels, scales[..., None]).sub_(groups).abs_().amax(-1)
    if bool((error > LATTICE_ERROR * (highest - lowest)).any()):
        return None
    return levels.int().view_as(weight), scales, lowest


def groups_of(linear: nn.Module) -> FourBitGroups | None:
    """The groups of a linear's weight, stated by its storage or found in its plain weight."""
    if isinstance(linear, StoredLinear):
        storage = linear.storage
        return storage.four_bit_groups() if isinstance(storage, BlockStorage) and not linear.out_features % 16 else None
    return four_bit_groups(linear.get_parameter("weight")) if type(linear) in PLAIN_LINEARS else None


def make_fast(network: Transformer, precision: str) -> None:
    """Repack a network in place for generation on a CPU.

    Args:
        network: float32 or in storages, without adapters but those that cannot be merged. Storages that are not of
            four bits are widened.
        precision: "float32" or "bfloat16": of everything but the single rows of four-bit linears.
    """
    has_four_bits = _keep_four_bits(network)
    if has_four_bits or precision == "bfloat16":
        storage = network.head_storage
        weight = network.head_weight if storage is None else storage.dequantized()
        network.lm_head = HalfHead(network.lm_head, weight, storage)
    for name, layer in list(stored_layers(network)):
        multiplied_whole = "linears." in name or name.startswith("lm_head")  # for many rows: in FourBits, in HalfHead
        if not multiplied_whole and (isinstance(layer, StoredLinear) or precision == "bfloat16"):
            put(network, name, layer.widened())
    if precision == "bfloat16":
        network.bfloat16()
        for name, module in _plain_linears(network) if can_pack() else []:
            put(network, name, PackedLinear(module.weight, module.bias))


def _keep_four_bits(network: Transformer) -> bool:
    """Join linears that read one input and have four-bit groups, kept in four bits; returns whether there are any."""
    has_four_bits = False
    for parent in list(network.modules()):
        for names in SHARED_INPUT:
            parts = [getattr(parent, name, None) for name in names]
            linears = [part for part in parts if isinstance(part, nn.Linear | StoredLinear)]
            groups = [group for linear in linears if (group := groups_of(linear)) is not None]
            if len(groups) < len(names):  # one is missing, or not in four bits
                continue
            joined = FourBits(linears, groups)
            for index, name in enumerate(names):
                put(parent, name, FourBitLinear(joined, index))
            has_four_bits = True
    return has_four_bits


def _plain_linears(network: Transformer) -> list[tuple[str, nn.Linear]]:
    """Linears of the blocks that nothing has taken the place of."""
    linears = [(name, module) for name, module in network.named_modules() if type(module) in PLAIN_LINEARS]
    return [(name, module) for name, module in linears if "lm_head" not in name and "joined" not in name]


def can_pack() -> bool:
    """Whether this PyTorch has oneDNN's packed bfloat16 product for this processor."""
    try:
        probe = PackedLinear(torch.ones(32, 32), None)
        return bool((probe(torch.ones(1, 32, dtype=torch.bfloat16)) == 32).all())
    except (RuntimeError, AttributeError):
        return False
