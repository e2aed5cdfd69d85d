"""The native AdamW equals PyTorch's, over tensors of many sizes, on each instruction set of this processor."""

import pytest
import torch

from lmworks.kernels import adamw
from lmworks.kernels.native_module import native_module

SETS = native_module().instruction_sets() if adamw.can_run() else []
SHAPES = [(3,), (300, 128), (1,), (70_000,), (17, 5)]  # smaller and larger than a work item, whole vectors and not

pytestmark = pytest.mark.skipif(not SETS, reason="the native kernels are not compiled here")


@pytest.fixture(params=SETS or ["none"], autouse=True)
def _instruction_set(request):
    before = native_module().instruction_set()
    native_module().set_instruction_set(request.param)
    yield
    native_module().set_instruction_set(before)


def test_steps_are_pytorchs():
    torch.manual_seed(0)
    theirs = [torch.randn(shape, requires_grad=True) for shape in SHAPES]
    ours = [weight.detach().clone() for weight in theirs]
    first, second = ([torch.zeros_like(weight) for weight in ours] for _ in range(2))
    optimizer = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1)
    for step in range(1, 6):
        for weight in theirs:
            weight.grad = torch.randn_like(weight) / 2
        gradients = [2 * weight.grad for weight in theirs]  # clipped to half of their norm
        optimizer.step()
        scalars = adamw.AdamWScalars(1e-2, 0.9, 0.999, 0.1, 1e-8, 1 - 0.9**step, (1 - 0.999**step) ** 0.5, 0.5)
        adamw.adamw_step(ours, gradients, first, second, scalars)
    for weight, own, m, v in zip(theirs, ours, first, second, strict=True):
        torch.testing.assert_close(own, weight.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(m, optimizer.state[weight]["exp_avg"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(v, optimizer.state[weight]["exp_avg_sq"], rtol=1e-5, atol=1e-6)


def test_the_sum_of_squares_does_not_depend_on_the_number_of_threads():
    torch.manual_seed(0)
    tensors = [torch.randn(shape) for shape in SHAPES]
    expected = sum(float(tensor.double().square().sum()) for tensor in tensors)
    threads, sums = torch.get_num_threads(), set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            sums.add(adamw.sum_of_squares(tensors))
    finally:
        torch.set_num_threads(threads)
    assert len(sums) == 1
    assert sums.pop() == pytest.approx(expected, rel=1e-6)


def test_sizes_that_do_not_agree_are_refused():
    weight, gradient = torch.ones(4), torch.ones(5)
    scalars = adamw.AdamWScalars(1e-2, 0.9, 0.999, 0.1, 1e-8, 0.1, 0.03, 1.0)
    with pytest.raises(ValueError, match="gradient"):
        adamw.adamw_step([weight], [gradient], [weight.clone()], [weight.clone()], scalars)
