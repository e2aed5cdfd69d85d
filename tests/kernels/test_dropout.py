"""Dropout zeroes elements at its rate, preserves the mean, and multiplies the gradient by the same factors."""

import pytest
import torch

from lmworks.kernels.dropout import dropout


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_rate_and_factors(rate):
    torch.manual_seed(0)
    count = 200_003  # not a multiple of the four elements that share one draw
    dropped = dropout(torch.ones(count), rate)
    nonzero = dropped[dropped != 0]
    torch.testing.assert_close(nonzero, torch.full_like(nonzero, 1 / (1 - rate)))
    fraction, deviation = 1 - len(nonzero) / count, (rate * (1 - rate) / count) ** 0.5
    assert abs(fraction - rate) < 5 * deviation


def test_neighbours_are_independent():
    torch.manual_seed(1)
    zero = (dropout(torch.ones(400_000), 0.5) == 0).view(-1, 4).double()  # the four lanes of one draw
    correlation = torch.corrcoef(zero.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / 100_000**0.5


def test_gradient_has_the_same_factors():
    torch.manual_seed(2)
    x = torch.randn(33, 7, requires_grad=True)
    y = dropout(x, 0.3)
    y.backward(torch.ones_like(y))
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_the_same_seed_drops_the_same():
    x = torch.randn(5, 5)
    outputs = [(torch.manual_seed(3), dropout(x, 0.4))[1] for _ in range(2)]
    torch.testing.assert_close(outputs[0], outputs[1], atol=0, rtol=0)
    assert dropout(x, 0.0) is x
