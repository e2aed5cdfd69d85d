"""What rounding to few bits does to a real matrix: the relative error of each scheme, beside the bits that it takes.

The matrix is one of MiniLM's, which was published in float32. ``--write`` puts the table into docs/quantization.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

PAGE = Path(__file__).parents[1] / "docs" / "quantization.md"
BEGIN = "<!-- printed by python benchmarks/quantization_errors.py --write -->"
END = "<!-- end of what is printed -->"
MODEL, MATRIX = "minilm-l6", "layers.2.mlp.down_proj"
HALF = 16  # bits of a scale or a smallest value


def absmax(weight: torch.Tensor, bits: int, block: int) -> torch.Tensor:
    """The largest magnitude of each block becomes the outermost level; levels lie evenly on both sides of zero."""
    blocks = weight.view(-1, block)
    step = blocks.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return ((blocks / step).round() * step).view_as(weight)


def affine(weight: torch.Tensor, bits: int, block: int) -> torch.Tensor:
    """The smallest number of each block becomes the first level, the largest the last: the smallest is kept."""
    blocks = weight.view(-1, block)
    least, most = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    step = (most - least) / (2**bits - 1)
    return (((blocks - least) / step).round() * step + least).view_as(weight)


def zero_point(weight: torch.Tensor, bits: int, block: int) -> torch.Tensor:
    """As affine, but a whole number is kept instead of the smallest: the level of zero, which then is exact."""
    blocks = weight.view(-1, block)
    least, most = blocks.amin(1, keepdim=True).clamp(max=0), blocks.amax(1, keepdim=True).clamp(min=0)
    step = (most - least) / (2**bits - 1)
    zero = (-least / step).round()
    levels = ((blocks / step).round() + zero).clamp(0, 2**bits - 1)
    return ((levels - zero) * step).view_as(weight)


def centred(weight: torch.Tensor, bits: int, block: int) -> torch.Tensor:
    """As affine is often written: centred on the mean, with the same step. The longer side is clipped."""
    blocks = weight.view(-1, block)
    mean = blocks.mean(1, keepdim=True)
    step = (blocks.amax(1, keepdim=True) - blocks.amin(1, keepdim=True)) / (2**bits - 1)
    levels = ((blocks - mean) / step).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (levels * step + mean).view_as(weight)


def ternary(weight: torch.Tensor) -> torch.Tensor:
    """-1, 0 or 1 times the mean magnitude of the matrix (Ma et al. 2024, BitNet b1.58)."""
    scale = weight.abs().mean()
    return (weight / scale).round().clamp(-1, 1) * scale


def schemes(weight: torch.Tensor) -> Iterator[tuple[str, str, float, torch.Tensor]]:
    """Name, how many numbers share a scale, bits a number with its share of the scales, and the rounded matrix."""
    from lmworks.model.block_formats import encode
    from lmworks.model.blockwise import BlockwiseStorage
    from lmworks.model.quant_types import BLOCK

    rows, columns = weight.shape
    plain: list[tuple[str, Callable[[torch.Tensor, int, int], torch.Tensor], float]] = [
        ("absmax", absmax, HALF),
        ("affine, smallest number kept", affine, 2 * HALF),
        ("affine, whole zero point kept", zero_point, HALF + 8),
        ("affine, centred on the mean", centred, 2 * HALF),
    ]
    for bits in (8, 4):
        for block, shared in ((columns, f"a row of {columns}"), (32, "32")):
            for name, function, kept in plain:
                yield f"{name}, {bits} bits", shared, bits + kept / block, function(weight, bits, block)
    for kind in ("Q8_0", "Q4_0", "Q4_1"):
        for search in (False, True) if kind != "Q8_0" else (False,):
            storage = encode(weight, kind, search)
            name = f"{kind}, {'scale searched' if search else 'plain'}"
            yield name, "32", 8 * storage.nbytes / weight.numel(), storage.dequantized()
    for quant_type in ("nf4", "int8"):
        once = BlockwiseStorage.quantize(weight, quant_type)
        scales = weight.view(-1, BLOCK).abs().amax(1).view(rows, -1)
        without = BlockwiseStorage(once.codes, scales, columns)
        bits = 8 * once.codes.nbytes / weight.numel()
        title = {"nf4": "NF4", "int8": "int8"}[quant_type]
        yield f"{title}, absmax in float32", str(BLOCK), bits + 32 / BLOCK, without.dequantized()
        yield f"{title}, double quantization", str(BLOCK), 8 * once.nbytes / weight.numel(), once.dequantized()
    yield "ternary, mean magnitude", "the matrix", 1.58, ternary(weight)
    storage = encode(weight, "TQ2_0")
    yield "ternary, absmax (TQ2_0)", "256", 8 * storage.nbytes / weight.numel(), storage.dequantized()


def table() -> str:
    """The table as Markdown, and what it is of."""
    import lmworks

    weight = lmworks.load(MODEL).network.get_submodule(MATRIX).weight.detach().float()
    lines = ["| scheme | numbers that share a scale | bits a number | relative error |", "| --- | --- | ---: | ---: |"]
    for name, shared, bits, rounded in schemes(weight):
        error = float((rounded - weight).norm() / weight.norm())
        lines.append(f"| {name} | {shared} | {bits:.2f} | {error:.2%} |")
    rows, columns = weight.shape
    return "\n".join([*lines, "", f"`{MATRIX}` of `{MODEL}`, {rows} x {columns}; the error is |W' - W| / |W|."])


def main() -> None:
    """Print the table; with ``--write``, put it into its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/quantization.md")
    arguments = parser.parse_args()
    printed = table()
    print(printed)
    if arguments.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{printed}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
