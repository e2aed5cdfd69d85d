"""lmworks quantize: write a model, its adapter merged, as a GGUF file in fewer bits, and what that costs."""

from __future__ import annotations

import argparse

from lmworks.commands.export import add_files, write

FORMATS = ("q8", "q4", "q4_1", "tq1", "tq2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, FILE, the format of the weights."""
    parser.description = (
        "Write a decoder as a GGUF file with quantized matrices, which llama.cpp opens; an adapter is merged before "
        "rounding. Prints size and bits per byte beside those of the model. Token embeddings and head are Q8_0."
    )
    add_files(parser)
    parser.add_argument(
        "--to",
        choices=FORMATS,
        required=True,
        help="q8: Q8_0, 8.5 bits a weight; q4: Q4_0, 4.5; q4_1: Q4_1, 5 bits, each block with a smallest value; "
        "tq1, tq2: TQ1_0 and TQ2_0, 1.7 and 2.1 bits, for models that were trained with ternary weights",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Open, write and measure."""
    return write(args, args.to)
