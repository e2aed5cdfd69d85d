"""Every native kernel equals its PyTorch definition, forward and backward, on every instruction set there is here."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.nn import functional

from lmworks.kernels import activations, attention, dropout, entropy, norms, rotary
from lmworks.kernels.library import NATIVE_ACTIVATIONS, library
from lmworks.kernels.native import capsule, serves

SETS = library().instruction_sets() if library() is not None else []
needs_kernels = pytest.mark.skipif(not SETS, reason="the native kernels were not built here")


@pytest.fixture(params=SETS or ["none"], name="kernels")
def _kernels(request):
    """The library, set to one of its instruction sets."""
    if not SETS:
        pytest.skip("the native kernels were not built here")
    before = library().in_use()
    library().use(request.param)
    yield library()
    library().use(before)


def both(function, definition, *inputs, tolerance=2e-5, precision=torch.float32, kept=()):
    """Outputs and gradients agree with those of the definition in float32; what comes back is not contiguous.

    Args:
        function: takes the inputs in this precision, but for those at the places ``kept``, which stay float32.
    """
    torch.manual_seed(5)
    inputs = [x if at in kept else x.to(precision) for at, x in enumerate(inputs)]
    results = []
    for made, width in ((function, None), (definition, torch.float32)):
        own = [x.detach().to(width or x.dtype, copy=True).requires_grad_() for x in inputs]
        out = made(*own)
        slope = torch.randn(*out.shape[::-1], generator=torch.Generator().manual_seed(6)).to(precision)
        out.backward(slope.permute(*reversed(range(out.dim()))).to(out.dtype))
        results.append((out.detach(), *(x.grad for x in own)))
        if width is None:
            assert out.dtype == precision
            assert all(x.grad.dtype == x.dtype for x in own)
            assert "Native" in type(out.grad_fn).__name__  # the kernel was tested, not the definition
    for ours, theirs in zip(*results, strict=True):
        rounded = 2**-7 if precision == torch.bfloat16 else 1e-4
        torch.testing.assert_close(ours.float(), theirs, atol=tolerance, rtol=rounded)


PRECISIONS = [
    one for one in (torch.float32, torch.bfloat16) if serves(torch.zeros(1, dtype=one)) or one == torch.float32
]
precisions = pytest.mark.parametrize("precision", PRECISIONS, ids=lambda one: str(one).removeprefix("torch."))
SHAPES = [(3, 5, 48), (70, 37), (1, 1), (2, 129)]  # whole vectors and rests of them, more rows than a task has


@precisions
@pytest.mark.parametrize("kept", [(), (1, 2)], ids=["weights alike", "weights float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm(kernels, shape, precision, kept):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(shape[-1]), torch.randn(shape[-1])

    def definition(x, weight, bias):
        return functional.layer_norm(x, shape[-1:], weight, bias, 1e-5)

    ours = partial(norms.layer_norm, eps=1e-5)
    both(ours, definition, x * 3 + 1, weight, bias, tolerance=1e-4, precision=precision, kept=kept)


@precisions
@pytest.mark.parametrize("kept", [(), (1,)], ids=["weights alike", "weights float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm(kernels, shape, precision, kept):
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(shape[-1])

    def definition(x, weight):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight

    both(partial(norms.rms_norm, eps=1e-5), definition, x, weight, precision=precision, kept=kept)


@precisions
@pytest.mark.parametrize("name", NATIVE_ACTIVATIONS)
@pytest.mark.parametrize("count", [1, 16, 1003, 40_000])
def test_activations(kernels, name, count, precision):
    torch.manual_seed(0)
    x, up = torch.randn(count) * 4, torch.randn(count)
    plain, ours = activations.ACTIVATIONS[name], partial(activations.activate, name)
    both(ours, plain, x, precision=precision)
    both(ours, lambda x, up: plain(x) * up, x, up, precision=precision)


@precisions
def test_activations_far_out(kernels, precision):
    x = torch.tensor([-100.0, -30.0, -9.0, -0.0, 0.0, 9.0, 30.0, 100.0])
    for name in NATIVE_ACTIVATIONS:
        both(partial(activations.activate, name), activations.ACTIVATIONS[name], x, precision=precision)


@precisions
@pytest.mark.parametrize("turned", [8, 6, 2])
def test_rotary(kernels, turned, precision):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 8)
    cos, sin = torch.randn(1, 5, 1, turned // 2), torch.randn(1, 5, 1, turned // 2)

    def definition(x):
        first, second, rest = x.split((turned // 2, turned // 2, 8 - turned), dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)

    both(lambda x: rotary.rotate(x, cos, sin), definition, x, precision=precision)


def test_definitions_serve_bfloat16():
    """Without gradients there are no kernels: float32 inside, the result in the precision of x."""
    torch.manual_seed(0)
    x, up, weight = torch.randn(3, 5, 2, 8), torch.randn(3, 5, 2, 8), torch.randn(8)
    cos, sin = torch.randn(1, 5, 1, 3), torch.randn(1, 5, 1, 3)
    made = {
        "rms": lambda x, up: norms.rms_norm(x, weight, 1e-5),
        "layer": lambda x, up: norms.layer_norm(x, weight, weight, 1e-5),
        "turned": lambda x, up: rotary.rotate(x, cos, sin),
        "gated": lambda x, up: activations.activate("silu", x, up),
    }
    brief = x.bfloat16(), up.bfloat16()
    with torch.no_grad():
        for function in made.values():
            ours, exact = function(*brief), function(*(one.float() for one in brief))
            assert ours.dtype == torch.bfloat16
            torch.testing.assert_close(ours.float(), exact, rtol=2**-7, atol=1e-3)


@pytest.mark.skipif(torch.bfloat16 not in PRECISIONS, reason="the native kernels were not built here")
def test_what_is_stored_is_rounded_as_torch_rounds(kernels):
    """Every kind of float32: halves between two bfloat16, subnormal ones, infinite ones, none at all."""
    bits = torch.randint(-(2**31), 2**31, (4096,), dtype=torch.int64).to(torch.int32)
    bits[:1024] = bits[:1024] & ~0xFFFF | 0x8000  # exact halves
    x = bits.view(torch.float32).bfloat16()
    x[:4] = torch.tensor([torch.inf, -torch.inf, torch.nan, -0.0])
    y = torch.empty_like(x)
    # x + x keeps what is special and rounds nothing but what overflows; x + a tiny part rounds
    part = (x.float() * 2**-9).bfloat16()
    library().add_dropped(*map(capsule, (x, part, y)), 0.0, 0)
    torch.testing.assert_close(y, (x.float() + part.float()).bfloat16(), atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("words", [5, 64, 1001])
def test_cross_entropy(kernels, words):
    logits, targets, weights = torch.randn(19, words) * 6, torch.randint(0, words, (19,)), torch.rand(19)
    given = logits.clone().requires_grad_()
    expected = functional.cross_entropy(given, targets, reduction="none") * weights
    expected.sum().backward()
    untouched = logits.clone()
    losses = entropy.cross_entropy_(untouched, targets, weights, slopes=False)
    torch.testing.assert_close(losses, expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(untouched, logits, atol=0, rtol=0)
    entropy.cross_entropy_(logits, targets, weights)
    torch.testing.assert_close(logits, given.grad, atol=1e-6, rtol=1e-4)


CASES = {
    "short": (4, 4, 32, True, [16, 16, 16, 5, 1], None),
    "grouped": (9, 3, 64, True, [70, 1, 33], None),
    "long": (2, 1, 16, True, [30, 600, 257], None),  # documents that several tasks share
    "one head of keys": (25, 1, 8, True, [19, 5], None),
    "more keys": (6, 2, 12, True, [5, 300], [9, 310]),
    "both ways": (3, 3, 24, False, [33, 64], None),
    "sources": (4, 2, 17, False, [7, 20, 300], [31, 2, 9]),
}


def _alone(query, keys, values, spans, key_spans, scale, causal):
    """The definition: each document through its own softmax."""
    groups, mixed = query.shape[1] // keys.shape[1], []
    parts = zip(query.split(spans), keys.split(key_spans), values.split(key_spans), strict=True)
    for q, k, v in parts:
        q, k, v = (x.transpose(0, 1) for x in (q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)))
        scores = q @ k.mT * scale
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
        mixed.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(mixed)


def _borders(spans):
    return torch.tensor((0, *spans)).cumsum(0)


@precisions
@pytest.mark.parametrize("case", CASES)
def test_attention(kernels, case, precision):
    heads, groups, size, causal, spans, key_spans = CASES[case]
    key_spans = key_spans or spans
    torch.manual_seed(1)
    query = torch.randn(sum(spans), heads, size)
    keys, values = torch.randn(2, sum(key_spans), groups, size)
    borders = _borders(spans), _borders(key_spans)
    both(
        lambda q, k, v: attention.attend(q, k, v, *borders, 0.2, causal, 0.0),
        lambda q, k, v: _alone(q, k, v, spans, key_spans, 0.2, causal),
        query,
        keys,
        values,
        tolerance=5e-5 if precision == torch.float32 else 3e-2,  # the output that is read again was rounded
        precision=precision,
    )


def test_attention_reads_parts_of_wider_rows(kernels):
    """Queries, keys and values may be slices of one product."""
    joined = torch.randn(12, 3 * 2 * 8)
    q, k, v = (part.unflatten(1, (2, 8)) for part in joined.chunk(3, dim=1))
    apart = [x.contiguous() for x in (q, k, v)]
    borders = _borders([5, 7])
    one, other = (attention.attend(*x, borders, borders, 0.3, True, 0.0) for x in ((q, k, v), apart))
    torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_dropout_of_attention(kernels):
    """Weights are dropped at the rate, and the gradient is that of the weights that were kept: by differences."""
    torch.manual_seed(3)
    query, keys, values = torch.randn(3, 40, 2, 16)
    borders = _borders([40])

    def mixed(values):
        torch.manual_seed(4)
        return attention.attend(query, keys, values, borders, borders, 0.25, False, 0.3)

    # with one value a key, the output tells the dropped weights themselves
    marks = torch.zeros(40, 2, 16)
    marks[0] = 1
    weights = mixed(marks)[:, :, 0]
    plain = attention.attend(query, keys, marks, borders, borders, 0.25, False, 0.0)[:, :, 0]
    factors = weights / plain
    assert set(factors.flatten().mul(7).round().tolist()) <= {0.0, 10.0}
    assert 0.1 < (factors == 0).float().mean() < 0.55
    x, slope = query.clone().requires_grad_(), torch.randn(40, 2, 16)

    def loss(query):
        torch.manual_seed(4)
        return (attention.attend(query, keys, values, borders, borders, 0.25, False, 0.3) * slope).sum()

    loss(x).backward()
    step = torch.randn_like(query)
    slow = (loss(query + 1e-2 * step) - loss(query - 1e-2 * step)) / 2e-2
    torch.testing.assert_close((x.grad * step).sum(), slow, rtol=2e-2, atol=2e-2)


def test_dropped_residuals(kernels):
    torch.manual_seed(7)
    x, part = torch.randn(300, 41), torch.randn(300, 41)
    y = dropout.add_dropped(x, part, 0.25)
    factors = (y - x) / part
    kept = factors[factors.abs() > 0.5]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.75), rtol=1e-2, atol=1e-2)
    assert abs(len(kept) / factors.numel() - 0.75) < 0.02
    own = part.clone().requires_grad_()
    torch.manual_seed(8)
    dropped = dropout.dropout(own, 0.25)
    dropped.backward(torch.ones_like(part))
    torch.testing.assert_close(own.grad * part, dropped.detach())


@needs_kernels
def test_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(9)
    x, weight = torch.randn(200, 64, requires_grad=True), torch.randn(64, requires_grad=True)
    row = torch.randn(900, 6, 8, requires_grad=True)
    borders = _borders([600, 1, 299])
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out = norms.rms_norm(x, weight, 1e-5)
        mixed = attention.attend(row, row[:, :3], row[:, 3:], borders, borders, 0.3, True, 0.0)
        slopes = torch.autograd.grad(mixed.square().sum(), row)
        found.append((mixed, *slopes, *torch.autograd.grad(out.square().sum(), (x, weight))))
    torch.set_num_threads(2)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert torch.equal(one, two)


@needs_kernels
def test_bad_arguments_are_refused():
    x, small = torch.zeros(4, 8), torch.zeros(3)
    with pytest.raises(ValueError, match="sizes do not agree"):
        library().rms_norm(capsule(x), capsule(torch.ones(8)), capsule(small), capsule(torch.zeros(4)), 1e-5)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        library().cross_entropy(
            capsule(x), capsule(torch.tensor([0, 1, 8, 2])), capsule(torch.ones(4)), capsule(torch.zeros(4)), True
        )
    with pytest.raises(ValueError, match="no kernels for"):
        library().use("avx9000")


@pytest.mark.parametrize(("wanted", "said"), [("off", "switched off"), ("avx9000", "is not to be had here")])
def test_what_is_not_to_be_had_is_said(wanted, said):
    if wanted != "off" and not SETS:
        pytest.skip("the native kernels were not built here")
    code = "from lmworks.kernels.library import describe; print(describe())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"LMWORKS_KERNELS": wanted, "PATH": ""}, capture_output=True, text=True
    )
    assert said in done.stdout, done.stderr
