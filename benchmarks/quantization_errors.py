"""What rounding to few bits does to a real matrix: the relative error of each scheme, beside the bits that it takes.

The matrix is one of MiniLM's, which was published in float32. ``--write`` puts the table into docs/quantization.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

import lmworks
from lmworks.model.block_formats import encode
from lmworks.model.blockwise import BlockwiseStorage
from lmworks.model.quant_types import BLOCK
from lmworks.model.rounding_rules import RULES, SCALE_BITS, Rounded, as_stored, relative_error

PAGE = Path(__file__).parents[1] / "docs" / "quantization.md"
BEGIN = "<!-- printed by python benchmarks/quantization_errors.py --write -->"
END = "<!-- end of what is printed -->"
MODEL, MATRIX = "minilm-l6", "layers.2.mlp.down_proj"


def minimum_kept(weight: torch.Tensor, bits: int) -> Rounded:
    """As affine, but the smallest number of each row is kept, in place of a whole zero point."""
    least, most = weight.aminmax(dim=1, keepdim=True)
    step = as_stored((most - least) / (2**bits - 1))
    levels = ((weight - least) / step).round()
    return _row_by_row(levels, step, least, bits)


def centred(weight: torch.Tensor, bits: int) -> Rounded:
    """As affine is often written: each row centred on its mean, with the same step. The longer side is clipped."""
    least, most = weight.aminmax(dim=1, keepdim=True)
    mean, step = weight.mean(1, keepdim=True), as_stored((most - least) / (2**bits - 1))
    levels = ((weight - mean) / step).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return _row_by_row(levels, step, mean, bits)


def _row_by_row(levels: torch.Tensor, step: torch.Tensor, offset: torch.Tensor, bits: int) -> Rounded:
    """(rows, columns) levels with a step and an offset (rows, 1) for each row."""
    columns = levels.shape[1]
    return Rounded(levels[:, None], step[:, None], offset[:, None], columns, bits + 2 * SCALE_BITS / columns)


def schemes(weight: torch.Tensor) -> Iterator[tuple[str, float, torch.Tensor]]:
    """Name, bits a number with its share of the scales, and the rounded matrix."""
    for name, rule in RULES.items():
        rounded = rule(weight)
        yield name, rounded.bits, rounded.dequantized()
    for bits in (8, 4):
        for name, shown in ((f"int{bits} minimum kept, rows", minimum_kept), (f"int{bits} centred, rows", centred)):
            rounded = shown(weight, bits)
            yield name, rounded.bits, rounded.dequantized()
    for kind, name in (("Q4_0", "Q4_0, scale searched"), ("Q4_1", "Q4_1, scale searched"), ("TQ2_0", "TQ2_0")):
        storage = encode(weight, kind)
        yield name, 8 * storage.nbytes / weight.numel(), storage.dequantized()
    for quant_type, name in (("nf4", "NF4"), ("int8", "int8 in groups of 64")):
        storage = BlockwiseStorage.quantize(weight, quant_type)
        scales = weight.view(-1, BLOCK).abs().amax(1).view(weight.shape[0], -1)
        exact = BlockwiseStorage(storage.codes, scales, weight.shape[1])
        yield f"{name}, absmax in float32", 8 * storage.codes.nbytes / weight.numel() + 32 / BLOCK, exact.dequantized()
        if quant_type == "int8":  # NF4 so is among the rules
            yield f"{name}, double quantization", 8 * storage.nbytes / weight.numel(), storage.dequantized()


def table() -> str:
    """The table as Markdown, and what it is of."""
    weight = lmworks.load(MODEL).network.get_submodule(MATRIX).weight.detach().float()
    lines = ["| scheme | bits a number | relative error |", "| --- | ---: | ---: |"]
    for name, bits, rounded in sorted(schemes(weight), key=lambda scheme: -scheme[1]):
        lines.append(f"| {name} | {bits:.2f} | {relative_error(weight, rounded):.2%} |")
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
