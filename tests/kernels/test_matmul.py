"""Matrix products of every provider equal PyTorch's in float64, whichever way the operands are stored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.matmul import PROVIDERS, available, matmul, providers, shape_of
from lmworks.kernels.native_module import native_module
from lmworks.kernels.product_shapes import NATIVE, PARTS, PYTORCH, ProductShape

SETS = native_module().instruction_sets() if native_module() is not None else []
SHAPES = [
    (1, 1, 1),
    (7, 13, 5),
    (13, 1, 17),
    (6, 400, 64),
    (1, 576, 49),
    (100, 33, 70),
    (65, 1000, 1600),
    (200, 64, 96),
]
"""(M, K, N): below and above a tile, a panel and a block in each size, and not multiples of them."""


def stored(rows: int, columns: int, by_columns: bool) -> torch.Tensor:
    """A random matrix, stored by rows or by columns, with other numbers between its own."""
    if by_columns:
        return torch.randn(columns, rows + 3)[:, :rows].t()
    return torch.randn(rows, columns + 3)[:, :columns]


OTHERS = [name for name in (*available("float32"), PARTS) if name != NATIVE]


@pytest.fixture(params=[*OTHERS, *(f"{NATIVE} {name}" for name in SETS)])
def provider(request: pytest.FixtureRequest) -> Iterator[str]:
    """A provider; the native one with each instruction set of this processor."""
    name, _, instruction_set = request.param.partition(" ")
    before = native_module().instruction_set() if native_module() is not None else ""
    if instruction_set:
        native_module().set_instruction_set(instruction_set)
    yield name
    if instruction_set:
        native_module().set_instruction_set(before)


@pytest.mark.parametrize("by_columns", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_those_of_float64(
    provider: str, shape: tuple[int, int, int], by_columns: tuple[bool, bool]
) -> None:
    torch.manual_seed(0)
    rows, depth, columns = shape
    a, b = stored(rows, depth, by_columns[0]), stored(depth, columns, by_columns[1])
    exact = a.double() @ b.double()
    for addend in (None, torch.randn(rows, columns), torch.randn(columns)):
        expected = exact * 0.5 + (0 if addend is None else addend.double())
        result = PROVIDERS[provider](a, b, addend, 0.5, False)
        torch.testing.assert_close(result.double(), expected, atol=2e-5 * depth**0.5, rtol=1e-5)
    total = torch.randn(rows, columns)
    expected = total.double() + 2 * exact
    result = PROVIDERS[provider](a, b, total, 2.0, True)
    assert result.data_ptr() == total.data_ptr()
    torch.testing.assert_close(total.double(), expected, atol=5e-5 * depth**0.5, rtol=1e-5)


@pytest.mark.skipif(not SETS, reason="the native kernels are not compiled here")
def test_bits_do_not_depend_on_the_threads() -> None:
    a, b = torch.randn(301, 700), torch.randn(900, 700).t()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(PROVIDERS[NATIVE](a, b, None, 1.0, False))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.skipif(not SETS, reason="the native kernels are not compiled here")
def test_rows_of_a_product_do_not_depend_on_the_other_rows() -> None:
    a, b = torch.randn(50, 100), torch.randn(100, 70)
    whole = PROVIDERS[NATIVE](a, b, None, 1.0, False)
    assert torch.equal(PROVIDERS[NATIVE](a[7:12], b, None, 1.0, False), whole[7:12])


@pytest.mark.skipif(not SETS, reason="the native kernels are not compiled here")
@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        (((4, 3), (2, 5), (4, 5)), "b: sizes"),
        (((4, 3), (3, 5), (3, 5)), "c: sizes"),
        (((4, 3), (3, 5), (4, 4)), "c: sizes"),
        (((4, 0), (0, 5), (4, 5)), "empty"),
    ],
)
def test_sizes_are_checked(shapes: tuple[tuple[int, int], ...], name: str) -> None:
    arrays = [to_dlpack(torch.zeros(shape)) for shape in shapes]
    with pytest.raises(ValueError, match=name):
        native_module().matmul(*arrays, None, 1.0)


@pytest.mark.skipif(not SETS, reason="the native kernels are not compiled here")
def test_other_strides_and_addends_of_other_sizes_are_refused() -> None:
    a, b, c = torch.zeros(4, 6)[:, ::2], torch.zeros(3, 5), torch.zeros(4, 5)
    with pytest.raises(ValueError, match="a: neither"):
        native_module().matmul(to_dlpack(a), to_dlpack(b), to_dlpack(c), None, 1.0)
    with pytest.raises(ValueError, match="addend"):
        native_module().matmul(to_dlpack(a.contiguous()), to_dlpack(b), to_dlpack(c), to_dlpack(torch.zeros(3, 5)), 1.0)


def test_shapes_follow_layout_and_size() -> None:
    x, weight, grad_y = torch.empty(500, 576), torch.empty(1536, 576), torch.empty(500, 1536)
    assert str(shape_of(x, weight.t())) == "float32 forward 576 1536 512"
    assert str(shape_of(grad_y, weight)) == "float32 input_gradient 576 1536 512"
    assert str(shape_of(grad_y.t(), x)) == "float32 weight_gradient 576 1536 512"
    assert str(shape_of(x.bfloat16(), torch.empty(48, 576).bfloat16().t())) == "bfloat16 forward 576 64 512"
    assert shape_of(x[:8], weight.t()).tokens == 16
    assert shape_of(x[:17], weight.t()).tokens == 128
    assert shape_of(torch.empty(3000, 576), weight.t()).tokens == 1024
    shape = shape_of(x, weight.t())
    assert ProductShape.parse(str(shape)) == shape == ProductShape.of_linear("float32", "forward", 576, 1536, 500)


def test_each_shape_goes_to_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name, own in PROVIDERS.items():
        monkeypatch.setitem(PROVIDERS, name, lambda *values, name=name, own=own: asked.append(name) or own(*values))
    x, weight = torch.randn(300, 64), torch.randn(96, 64)
    other = available("float32")[-1]
    with providers({"float32 forward 64 96 512": other, "float32 input_gradient 64 96 512": "of another machine"}):
        expected = x @ weight.t()
        torch.testing.assert_close(matmul(x, weight.t()), expected)
        matmul(x[:4], weight.t())
        matmul(expected, weight)
        matmul(x.bfloat16(), weight.bfloat16().t())
    matmul(x, weight.t())
    assert asked == [other]


@pytest.mark.parametrize("rows", [3, 512, 513, 1300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_in_parts_are_the_whole_product(rows: int, dtype: torch.dtype) -> None:
    a, b = torch.randn(rows, 40).to(dtype), torch.randn(24, 40).to(dtype).t()
    bias, matrix = torch.randn(24).to(dtype), torch.randn(rows, 24).to(dtype)
    for addend, scale in ((None, 1.0), (None, 2.0), (bias, 1.0), (matrix, 2.0)):
        expected = PROVIDERS[PYTORCH](a, b, addend, scale, False)
        torch.testing.assert_close(PROVIDERS[PARTS](a, b, addend, scale, False), expected)
        if addend is not None and addend.ndim == 2:
            assert PROVIDERS[PARTS](a, b, addend, scale, True) is addend
            torch.testing.assert_close(addend, expected)
