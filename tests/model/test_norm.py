"""RMSNorm's own backward pass equals what autograd derives from the definition."""

import pytest
import torch

from lmworks.model.norm import LayerNorm, RMSNorm


@pytest.mark.parametrize("trainable", [True, False])
def test_rms_norm_equals_its_definition(trainable):
    torch.manual_seed(0)
    norm = RMSNorm(12, 1e-5)
    torch.nn.init.normal_(norm.weight)
    norm.weight.requires_grad_(trainable)
    x = torch.randn(2, 5, 12, requires_grad=True)
    grad = torch.randn(2, 5, 12)
    defined = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    expected = torch.autograd.grad(defined, [x, norm.weight] if trainable else [x], grad)
    grads = torch.autograd.grad(norm(x), [x, norm.weight] if trainable else [x], grad)
    torch.testing.assert_close(norm(x), defined)
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), defined)


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
def test_half_width_keeps_its_width(kind):
    norm = kind(16, eps=1e-5).bfloat16()
    x = torch.randn(3, 16).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x).float(), kind(16, eps=1e-5)(x.float()), atol=2e-2, rtol=2e-2)
