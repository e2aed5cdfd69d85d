"""lmworks quantize: write a model, its adapter merged, as a GGUF file in fewer bits, and what that costs."""

from __future__ import annotations

import argparse

from lmworks.base.errors import InputError
from lmworks.commands.export import add_files, write

CALIBRATED = "q4-calibrated"
FORMATS = ("q8", "q4", "q4_1", CALIBRATED, "tq1", "tq2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, FILE, the format of the weights."""
    parser.description = (
        "Write a decoder as a GGUF file with quantized matrices, which llama.cpp opens; an adapter is merged before "
        "rounding. Prints size, bits per byte and decode speed beside those of the model. Token embeddings and head "
        "are Q8_0."
    )
    add_files(parser)
    parser.add_argument(
        "--to",
        choices=FORMATS,
        required=True,
        help="q8: Q8_0, 8.5 bits a weight; q4: Q4_0, 4.5; q4_1: Q4_1, 5 bits, each block with a smallest value; "
        "q4-calibrated: the same, by what the linears read on the rows of --data; "
        "tq1, tq2: TQ1_0 and TQ2_0, 1.7 and 2.1 bits, for models that were trained with ternary weights",
    )
    parser.add_argument("--data", metavar="FILE", help="of q4-calibrated: text or rows like those the model will read")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Open, write and measure.

    Raises:
        InputError: a calibration without data, or data without a calibration.
    """
    if (args.data is None) == (args.to == CALIBRATED):
        fault = "a calibration reads rows" if args.data is None else f"{args.to} reads no rows"
        raise InputError(fault, "--data", "--to q4-calibrated --data FILE")
    return write(args, "q4_1" if args.to == CALIBRATED else args.to, args.data)
