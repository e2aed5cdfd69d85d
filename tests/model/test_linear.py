"""The linear of all models: the same numbers and gradients by every provider."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lmworks.kernels import matmul
from lmworks.kernels.product_shapes import FORWARD, INPUT_GRADIENT, TOKENS, WEIGHT_GRADIENT, ProductShape
from lmworks.model.linear import Linear, linear

LAYOUTS = (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the providers that computed something, in their order."""
    names: list[str] = []

    def counting(name, provider):
        def call(*arguments):
            names.append(name)
            return provider(*arguments)

        return call

    for name, provider in list(matmul.PROVIDERS.items()):
        monkeypatch.setitem(matmul.PROVIDERS, name, counting(name, provider))
    return names


def choice(provider: str, inputs: int, outputs: int) -> dict[str, str]:
    return {
        str(ProductShape("float32", layout, inputs, outputs, tokens)): provider
        for layout in LAYOUTS
        for tokens in TOKENS
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 96), (3, 7, 96), (1, 1, 96), (2, 200, 96)])
@pytest.mark.parametrize("provider", matmul.available("float32"))
def test_outputs_and_gradients_are_pytorchs(provider: str, shape: tuple[int, ...], bias: bool, called) -> None:
    torch.manual_seed(0)
    layer, x = Linear(96, 80, bias=bias), torch.randn(shape, requires_grad=True)
    grad_y = torch.randn(*shape[:-1], 80)
    expected = functional.linear(x, layer.weight, layer.bias)
    wanted = torch.autograd.grad(expected, [x, *layer.parameters()], grad_y)
    with matmul.providers(choice(provider, 96, 80)):
        y = layer(x)
        found = torch.autograd.grad(y, [x, *layer.parameters()], grad_y)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert called == [provider] * 4  # y, two gradients, y
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    for value, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-4)


def test_inputs_with_gaps_and_transposed_ones(called) -> None:
    weight, wide = torch.randn(80, 96), torch.randn(4, 6, 200)
    with matmul.providers(choice(matmul.available("float32")[-1], 96, 80)), torch.no_grad():
        for x in (wide[..., :96], torch.randn(96, 9).t(), torch.randn(7, 4, 96).transpose(0, 1)):
            torch.testing.assert_close(linear(x, weight), functional.linear(x, weight), rtol=1e-5, atol=1e-4)
    assert len(called) == 3


def test_other_precisions_and_no_choice_are_pytorchs_alone(called) -> None:
    weight, x = torch.randn(80, 96), torch.randn(5, 96)
    assert torch.equal(linear(x, weight), functional.linear(x, weight))
    with matmul.providers(choice("pytorch", 96, 80)):
        assert linear(x.bfloat16(), weight.bfloat16()).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16
        assert linear(x[0], weight).shape == (80,)
    assert called == []


def test_only_what_needs_a_gradient_gets_one() -> None:
    layer = Linear(96, 80)
    layer.weight.requires_grad_(False)
    with matmul.providers(choice(matmul.available("float32")[-1], 96, 80)):
        layer(torch.randn(5, 96)).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((80,), 5.0))
