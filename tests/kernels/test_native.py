"""Each native kernel equals its PyTorch definition, forward and backward, on each instruction set of this processor."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.nn import functional

from lmworks.kernels import activations, attention, dropout, entropy, norms, rotary
from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.native_module import NATIVE_ACTIVATIONS, native_module

SETS = native_module().instruction_sets() if native_module() else []
needs_kernels = pytest.mark.skipif(not SETS, reason="the native kernels are not compiled here")


@pytest.fixture(params=SETS or ["none"], name="kernels")
def _kernels(request):
    """The compiled module with one of its instruction sets selected."""
    if not SETS:
        pytest.skip("the native kernels are not compiled here")
    before = native_module().instruction_set()
    native_module().set_instruction_set(request.param)
    yield native_module()
    native_module().set_instruction_set(before)


def compare(function, definition, *inputs, tolerance=2e-5, dtype=torch.float32, float32_inputs=()):
    """Outputs and gradients equal those of the definition in float32; the gradient of the output is not contiguous.

    Args:
        function: gets the inputs in ``dtype``, except those at the indices ``float32_inputs``, which stay float32.
    """
    torch.manual_seed(5)
    inputs = [x if index in float32_inputs else x.to(dtype) for index, x in enumerate(inputs)]
    results = []
    for compute, is_native in ((function, True), (definition, False)):
        leaves = [x.detach().to(x.dtype if is_native else torch.float32, copy=True).requires_grad_() for x in inputs]
        out = compute(*leaves)
        grad = torch.randn(*out.shape[::-1], generator=torch.Generator().manual_seed(6)).to(dtype)
        out.backward(grad.permute(*reversed(range(out.dim()))).to(out.dtype))
        results.append((out.detach(), *(x.grad for x in leaves)))
        if is_native:
            assert out.dtype == dtype
            assert all(x.grad.dtype == x.dtype for x in leaves)
            assert "Native" in type(out.grad_fn).__name__  # the kernel was tested, not the definition
    for ours, expected in zip(*results, strict=True):
        rtol = 2**-7 if dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(ours.float(), expected, atol=tolerance, rtol=rtol)


DTYPES = [torch.float32, torch.bfloat16] if SETS else [torch.float32]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
SHAPES = [(3, 5, 48), (70, 37), (1, 1), (2, 129)]  # multiples of a vector and others; more rows than one task has


@dtypes
@pytest.mark.parametrize("float32_inputs", [(), (1, 2)], ids=["weights of the same dtype", "weights float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm(kernels, shape, dtype, float32_inputs):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(shape[-1]), torch.randn(shape[-1])

    def definition(x, weight, bias):
        return functional.layer_norm(x, shape[-1:], weight, bias, 1e-5)

    ours = partial(norms.layer_norm, eps=1e-5)
    compare(ours, definition, x * 3 + 1, weight, bias, tolerance=1e-4, dtype=dtype, float32_inputs=float32_inputs)


@dtypes
@pytest.mark.parametrize("float32_inputs", [(), (1,)], ids=["weights of the same dtype", "weights float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm(kernels, shape, dtype, float32_inputs):
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(shape[-1])

    def definition(x, weight):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight

    compare(partial(norms.rms_norm, eps=1e-5), definition, x, weight, dtype=dtype, float32_inputs=float32_inputs)


@dtypes
@pytest.mark.parametrize("name", NATIVE_ACTIVATIONS)
@pytest.mark.parametrize("count", [1, 16, 1003, 40_000])
def test_activations(kernels, name, count, dtype):
    torch.manual_seed(0)
    x, up = torch.randn(count) * 4, torch.randn(count)
    plain, ours = activations.ACTIVATIONS[name], partial(activations.activate, name)
    compare(ours, plain, x, dtype=dtype)
    compare(ours, lambda x, up: plain(x) * up, x, up, dtype=dtype)


@dtypes
def test_activations_far_out(kernels, dtype):
    x = torch.tensor([-100.0, -30.0, -9.0, -0.0, 0.0, 9.0, 30.0, 100.0])
    for name in NATIVE_ACTIVATIONS:
        compare(partial(activations.activate, name), activations.ACTIVATIONS[name], x, dtype=dtype)


@dtypes
@pytest.mark.parametrize("rotary_size", [8, 6, 2])
def test_rotary(kernels, rotary_size, dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 8)
    cos, sin = torch.randn(1, 5, 1, rotary_size // 2), torch.randn(1, 5, 1, rotary_size // 2)

    def definition(x):
        first, second, rest = x.split((rotary_size // 2, rotary_size // 2, 8 - rotary_size), dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)

    compare(lambda x: rotary.rotate(x, cos, sin), definition, x, dtype=dtype)


def test_definitions_in_bfloat16():
    """Without gradients PyTorch computes: in float32, and the result has the dtype of x."""
    torch.manual_seed(0)
    x, up, weight = torch.randn(3, 5, 2, 8), torch.randn(3, 5, 2, 8), torch.randn(8)
    cos, sin = torch.randn(1, 5, 1, 3), torch.randn(1, 5, 1, 3)
    functions = {
        "rms": lambda x, up: norms.rms_norm(x, weight, 1e-5),
        "layer": lambda x, up: norms.layer_norm(x, weight, weight, 1e-5),
        "rotary": lambda x, up: rotary.rotate(x, cos, sin),
        "gated": lambda x, up: activations.activate("silu", x, up),
    }
    inputs = x.bfloat16(), up.bfloat16()
    with torch.no_grad():
        for function in functions.values():
            ours, exact = function(*inputs), function(*(tensor.float() for tensor in inputs))
            assert ours.dtype == torch.bfloat16
            torch.testing.assert_close(ours.float(), exact, rtol=2**-7, atol=1e-3)


@pytest.mark.skipif(torch.bfloat16 not in DTYPES, reason="the native kernels are not compiled here")
def test_bfloat16_is_rounded_as_torch_rounds(kernels):
    """Ties between two bfloat16 numbers, subnormal numbers, infinities and NaN."""
    bits = torch.randint(-(2**31), 2**31, (4096,), dtype=torch.int64).to(torch.int32)
    bits[:1024] = bits[:1024] & ~0xFFFF | 0x8000  # exact ties
    x = bits.view(torch.float32).bfloat16()
    x[:4] = torch.tensor([torch.inf, -torch.inf, torch.nan, -0.0])
    y = torch.empty_like(x)
    part = (x.float() * 2**-9).bfloat16()
    native_module().dropout_add(*map(to_dlpack, (x, part, y)), 0.0, 0)
    torch.testing.assert_close(y, (x.float() + part.float()).bfloat16(), atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("vocab_size", [5, 64, 1001])
def test_cross_entropy(kernels, vocab_size):
    logits, targets, weights = torch.randn(19, vocab_size) * 6, torch.randint(0, vocab_size, (19,)), torch.rand(19)
    leaf = logits.clone().requires_grad_()
    expected = functional.cross_entropy(leaf, targets, reduction="none") * weights
    expected.sum().backward()
    unchanged = logits.clone()
    losses = entropy.cross_entropy_(unchanged, targets, weights, write_gradient=False)
    torch.testing.assert_close(losses, expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(unchanged, logits, atol=0, rtol=0)
    entropy.cross_entropy_(logits, targets, weights)
    torch.testing.assert_close(logits, leaf.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("vocab_size", [5, 64, 1001])
def test_cross_entropy_of_bfloat16_logits_is_that_of_the_same_numbers_in_float32(kernels, vocab_size):
    logits, targets = (torch.randn(19, vocab_size) * 6).bfloat16(), torch.randint(0, vocab_size, (19,))
    weights, wide = torch.rand(19), logits.float()
    losses, expected = (entropy.cross_entropy_(each, targets, weights) for each in (logits, wide))
    torch.testing.assert_close(losses, expected, atol=0, rtol=0)
    torch.testing.assert_close(logits, wide.bfloat16(), atol=0, rtol=0)


CASES = {
    "short": (4, 4, 32, True, [16, 16, 16, 5, 1], None),
    "grouped": (9, 3, 64, True, [70, 1, 33], None),
    "long": (2, 1, 16, True, [30, 600, 257], None),  # sequences that several tasks share
    "multi-query": (25, 1, 8, True, [19, 5], None),
    "more keys": (6, 2, 12, True, [5, 300], [9, 310]),
    "not causal": (3, 3, 24, False, [33, 64], None),
    "cross-attention": (4, 2, 17, False, [7, 20, 300], [31, 2, 9]),
}


def _definition(query, keys, values, lengths, key_lengths, scale, causal):
    """Each sequence alone through softmax(Q K^T scale) V."""
    groups, outputs = query.shape[1] // keys.shape[1], []
    parts = zip(query.split(lengths), keys.split(key_lengths), values.split(key_lengths), strict=True)
    for q, k, v in parts:
        q, k, v = (x.transpose(0, 1) for x in (q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)))
        scores = q @ k.mT * scale
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
        outputs.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outputs)


def _cu_seqlens(lengths):
    return torch.tensor((0, *lengths)).cumsum(0)


@dtypes
@pytest.mark.parametrize("case", CASES)
def test_attention(kernels, case, dtype):
    heads, groups, size, causal, lengths, key_lengths = CASES[case]
    key_lengths = key_lengths or lengths
    torch.manual_seed(1)
    query = torch.randn(sum(lengths), heads, size)
    keys, values = torch.randn(2, sum(key_lengths), groups, size)
    cu_seqlens = _cu_seqlens(lengths), _cu_seqlens(key_lengths)
    compare(
        lambda q, k, v: attention.varlen_attention(q, k, v, *cu_seqlens, 0.2, causal, 0.0),
        lambda q, k, v: _definition(q, k, v, lengths, key_lengths, 0.2, causal),
        query,
        keys,
        values,
        tolerance=5e-5 if dtype == torch.float32 else 3e-2,  # backward reads the output, which is rounded
        dtype=dtype,
    )


def test_attention_reads_slices_of_wider_rows(kernels):
    """Queries, keys and values may be slices of one tensor."""
    joined = torch.randn(12, 3 * 2 * 8)
    q, k, v = (part.unflatten(1, (2, 8)) for part in joined.chunk(3, dim=1))
    contiguous = [x.contiguous() for x in (q, k, v)]
    cu_seqlens = _cu_seqlens([5, 7])
    sliced, whole = (
        attention.varlen_attention(*x, cu_seqlens, cu_seqlens, 0.3, True, 0.0) for x in ((q, k, v), contiguous)
    )
    torch.testing.assert_close(sliced, whole, atol=0, rtol=0)


def test_dropout_of_attention(kernels):
    """Weights are dropped at the rate; the gradient uses the same factors (compared with finite differences)."""
    torch.manual_seed(3)
    query, keys, values = torch.randn(3, 40, 2, 16)
    cu_seqlens = _cu_seqlens([40])

    def attend(values):
        torch.manual_seed(4)
        return attention.varlen_attention(query, keys, values, cu_seqlens, cu_seqlens, 0.25, False, 0.3)

    # values that are 1 for key 0 and else 0: the output is the weight of key 0 after dropout
    marks = torch.zeros(40, 2, 16)
    marks[0] = 1
    weights = attend(marks)[:, :, 0]
    plain = attention.varlen_attention(query, keys, marks, cu_seqlens, cu_seqlens, 0.25, False, 0.0)[:, :, 0]
    factors = weights / plain
    assert set(factors.flatten().mul(7).round().tolist()) <= {0.0, 10.0}
    assert 0.1 < (factors == 0).float().mean() < 0.55
    x, grad = query.clone().requires_grad_(), torch.randn(40, 2, 16)

    def loss(query):
        torch.manual_seed(4)
        return (attention.varlen_attention(query, keys, values, cu_seqlens, cu_seqlens, 0.25, False, 0.3) * grad).sum()

    loss(x).backward()
    step = torch.randn_like(query)
    difference = (loss(query + 1e-2 * step) - loss(query - 1e-2 * step)) / 2e-2
    torch.testing.assert_close((x.grad * step).sum(), difference, rtol=2e-2, atol=2e-2)


def test_dropout_add(kernels):
    torch.manual_seed(7)
    x, part = torch.randn(300, 41), torch.randn(300, 41)
    y = dropout.dropout_add(x, part, 0.25)
    factors = (y - x) / part
    nonzero = factors[factors.abs() > 0.5]
    torch.testing.assert_close(nonzero, torch.full_like(nonzero, 1 / 0.75), rtol=1e-2, atol=1e-2)
    assert abs(len(nonzero) / factors.numel() - 0.75) < 0.02
    leaf = part.clone().requires_grad_()
    torch.manual_seed(8)
    dropped = dropout.dropout(leaf, 0.25)
    dropped.backward(torch.ones_like(part))
    torch.testing.assert_close(leaf.grad * part, dropped.detach())


def test_inputs_that_are_not_contiguous(kernels):
    torch.manual_seed(10)
    x = torch.randn(6, 4).t().requires_grad_()
    y = dropout.dropout(x, 0.5)
    y.backward(torch.ones_like(y))
    torch.testing.assert_close(x.grad * x.detach(), y.detach())
    rows, bias = torch.randn(3, 4, requires_grad=True), torch.randn(4, 2)[:, 0]
    expected = functional.layer_norm(rows, (4,), torch.ones(4), bias, 1e-5)
    torch.testing.assert_close(norms.layer_norm(rows, torch.ones(4), bias, 1e-5), expected)
    wide, lengths = torch.randn(12, 3, 2, 16, requires_grad=True), _cu_seqlens([5, 7])
    every_second = [head[..., ::2] for head in wide.unbind(1)]
    outputs = [
        attention.varlen_attention(*inputs, lengths, lengths, 0.3, True, 0.0)
        for inputs in (every_second, [head.contiguous() for head in every_second])
    ]
    torch.testing.assert_close(*outputs, atol=0, rtol=0)


@needs_kernels
def test_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(9)
    x, weight = torch.randn(200, 64, requires_grad=True), torch.randn(64, requires_grad=True)
    row = torch.randn(900, 6, 8, requires_grad=True)
    cu_seqlens = _cu_seqlens([600, 1, 299])
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out = norms.rms_norm(x, weight, 1e-5)
        out_attention = attention.varlen_attention(row, row[:, :3], row[:, 3:], cu_seqlens, cu_seqlens, 0.3, True, 0.0)
        gradients = torch.autograd.grad(out_attention.square().sum(), row)
        results.append((out_attention, *gradients, *torch.autograd.grad(out.square().sum(), (x, weight))))
    for others in results[1:]:
        for expected, actual in zip(results[0], others, strict=True):
            assert torch.equal(expected, actual)


@needs_kernels
def test_bad_arguments_are_refused():
    x, small, targets = torch.zeros(4, 8), torch.zeros(3), torch.tensor([0, 1, 8, 2])
    with pytest.raises(ValueError, match="sizes do not agree"):
        native_module().rms_norm(
            to_dlpack(x), to_dlpack(torch.ones(8)), to_dlpack(small), to_dlpack(torch.zeros(4)), 1e-5
        )
    with pytest.raises(ValueError, match="outside the vocabulary"):
        native_module().cross_entropy(*map(to_dlpack, (x, targets, torch.ones(4), torch.zeros(4))), True)
    with pytest.raises(ValueError, match="no kernels for"):
        native_module().set_instruction_set("avx9000")


@pytest.mark.parametrize(("setting", "fault"), [("off", "switched off"), ("avx9000", "is not available here")])
def test_describe_gives_the_fault(setting, fault):
    if setting != "off" and not SETS:
        pytest.skip("the native kernels are not compiled here")
    code = "from lmworks.kernels.native_module import describe; print(describe())"
    environment = {**os.environ, "LMWORKS_KERNELS": setting}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert fault in process.stdout, process.stderr
