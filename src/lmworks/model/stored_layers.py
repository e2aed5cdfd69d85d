"""Layers whose frozen matrix is a weight storage. It is dequantized for each use, forward and backward, so that only
one matrix at a time (of a head or an embedding, only some rows) exists in the precision of the matrix products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lmworks.kernels.matmul import matmul
from lmworks.model.linear import Linear, flat_product
from lmworks.model.storage import DenseStorage, WeightStorage, row_parts
from lmworks.model.surgery import put


class StoredLinear(nn.Module):
    """x (..., in_features) -> (..., out_features), in x's precision, or autocast's.

    Args:
        storage: of the weight (out_features, in_features).
        bias: (out_features,) or None.
    """

    def __init__(self, storage: WeightStorage, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.storage = storage
        self.out_features, self.in_features = storage.shape
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return linear(x, self.storage, self.bias)

    def widened(self) -> Linear:
        """A plain linear with the same weight in float32."""
        result = Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        result.weight = nn.Parameter(self.storage.dequantized(), requires_grad=False)
        if self.bias is not None:
            result.bias = self.bias
        return result

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, storage={self.storage.dtype_name}"


class StoredEmbedding(nn.Module):
    """Token ids (...) -> embeddings (..., E), in float32, or in autocast's precision.

    Args:
        storage: of the embeddings (V, E).
    """

    def __init__(self, storage: WeightStorage) -> None:
        super().__init__()
        self.storage = storage
        self.num_embeddings, self.embedding_dim = storage.shape

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """See the class."""
        kind = ids.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        return self.storage.rows(ids.flatten()).dequantized(dtype).view(*ids.shape, -1)

    def widened(self) -> nn.Embedding:
        """A plain embedding with the same weight in float32."""
        return nn.Embedding.from_pretrained(self.storage.dequantized())

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, storage={self.storage.dtype_name}"


def linear(x: torch.Tensor, storage: WeightStorage, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x (..., columns) -> (..., rows): x W^T + bias, in x's precision, or autocast's."""
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    with torch.autocast(x.device.type, enabled=False):
        return _StoredProduct.apply(x, bias, storage)


class _StoredProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor | None, storage: WeightStorage) -> torch.Tensor:
        ctx.storage = storage
        return product(x, storage, bias)

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        needs_x, needs_bias, _ = ctx.needs_input_grad
        grad_x = transposed_product(grad_y, ctx.storage) if needs_x else None
        return grad_x, grad_y.flatten(0, -2).sum(0, dtype=torch.float32) if needs_bias else None, None


def product(x: torch.Tensor, storage: WeightStorage, bias: torch.Tensor | None = None) -> torch.Tensor:
    """(..., columns) -> (..., rows): x W^T + bias in x's precision, without autograd."""
    bias = None if bias is None else bias.to(x.dtype)
    parts = row_parts(storage, x.dtype)
    if len(parts) == 1:
        weight = storage.dequantized(x.dtype)
        return flat_product(x, weight, bias)
    y = x.new_empty(*x.shape[:-1], storage.shape[0])
    for part in parts:
        weight = storage.rows(part).dequantized(x.dtype)
        y[..., part] = functional.linear(x, weight, None if bias is None else bias[part])
    return y


def transposed_product(grad_y: torch.Tensor, storage: WeightStorage) -> torch.Tensor:
    """(..., rows) -> (..., columns): grad_y W, without autograd; parts of a large matrix are summed in float32."""
    parts = row_parts(storage, grad_y.dtype)
    if len(parts) == 1:
        weight = storage.dequantized(grad_y.dtype)
        return matmul(grad_y, weight) if grad_y.ndim == 2 else grad_y @ weight
    total = torch.zeros(*grad_y.shape[:-1], storage.shape[1])
    for part in parts:
        total += grad_y[..., part] @ storage.rows(part).dequantized(grad_y.dtype)
    return total.to(grad_y.dtype)


def stored_layers(network: nn.Module) -> Iterator[tuple[str, StoredLinear | StoredEmbedding]]:
    """Dotted name and module of every layer with a storage."""
    for name, module in network.named_modules():
        if isinstance(module, StoredLinear | StoredEmbedding):
            yield name, module


def stored_bytes(network: nn.Module) -> int:
    """Bytes of all storages."""
    return sum(module.storage.nbytes for _, module in stored_layers(network))


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all parameters and storages."""
    return stored_bytes(network) + sum(parameter.nbytes for parameter in network.parameters())


def weight_formats(network: nn.Module) -> list[str]:
    """The formats of all matrices, such as float32 or Q4_1, the most frequent first."""
    counts = Counter(module.storage.dtype_name for _, module in stored_layers(network))
    counts.update(str(weight.dtype).removeprefix("torch.") for weight in network.parameters() if weight.ndim > 1)
    return [name for name, _ in counts.most_common()]


def store(network: nn.Module, name: str, storage: WeightStorage) -> None:
    """Replace the linear or embedding with this dotted name by a layer over a storage of its weight."""
    module = network.get_submodule(name)
    bias = getattr(module, "bias", None)
    if bias is not None:
        bias.requires_grad_(False)
    is_embedding = isinstance(module, nn.Embedding | StoredEmbedding)
    put(network, name, StoredEmbedding(storage) if is_embedding else StoredLinear(storage, bias))


def widen(network: nn.Module) -> dict[str, WeightStorage]:
    """Replace all layers with a storage by plain layers with float32 weights; gives the quantized ones by name."""
    layers = list(stored_layers(network))
    for name, module in layers:
        put(network, name, module.widened())
    return {name: module.storage for name, module in layers if not isinstance(module.storage, DenseStorage)}
