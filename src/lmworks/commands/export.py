"""lmworks export: write a model, its adapter merged, as a GGUF file in 16 or 32 bits."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from lmworks.commands.opening import add_base, add_head

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel
    from lmworks.run.calibration import CalibrationReport

PRECISIONS = ("float16", "bfloat16", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, FILE, the precision of the weights."""
    parser.description = "Write a decoder as a GGUF file, which llama.cpp opens; an adapter is merged."
    add_files(parser)
    parser.add_argument("--dtype", choices=PRECISIONS, default=PRECISIONS[0], help="of the matrices; default: float16")


def add_files(parser: argparse.ArgumentParser) -> None:
    """What every command that writes a GGUF file takes."""
    parser.add_argument("model", help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution")
    add_base(parser)
    add_head(parser)
    parser.add_argument("file", help="where to: a new file, whose name ends in .gguf")
    parser.add_argument("--overwrite", action="store_true", help="replace a GGUF file that stands there")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Open, write and measure."""
    return write(args, args.dtype)


def write(args: argparse.Namespace, to: str, data: str | None = None) -> int:
    """Write a GGUF file in a format, and print what became of the model.

    Args:
        args: what :func:`add_files` adds.
        to: as of language_model/export.py.
        data: rows by which the linears are calibrated first (run/calibration.py), to blocks of this format.
    """
    from pathlib import Path

    from lmworks.base.files import human
    from lmworks.evaluate.progress import listening
    from lmworks.families.gguf_writer import check_gguf_place
    from lmworks.language_model.ngram import NgramLanguageModel, refuse
    from lmworks.language_model.opening import unfinished_run
    from lmworks.model.stored_layers import weight_bytes
    from lmworks.run.checkpoint_model import load
    from lmworks.run.decode_speed import line_of, measure_decoding
    from lmworks.run.requantization import export_and_measure
    from lmworks.train.progress import EvaluationProgress

    check_gguf_place(Path(args.file), args.overwrite)  # before the model is opened, not after
    # blocks that are of the format already are written as they are, so they must be held as the source has them
    storage = None if unfinished_run(args.model) else "stored"
    model = load(args.model, storage=storage, base=args.base, head=args.head)
    if isinstance(model, NgramLanguageModel):
        refuse(model.source)
    before = weight_bytes(model.network)
    speed = None if data is None else measure_decoding(model.network)  # which the calibration changes
    calibration = None if data is None else _calibrate(model, data)
    _say("writing, and measuring bits per byte of the model and of the file")
    with EvaluationProgress("bits per byte") as bar, listening(bar):
        file, loss = export_and_measure(model, args.file, to, args.overwrite)
    if calibration is not None and calibration.loss is not None and loss is not None:
        loss = replace(loss, before=calibration.loss.before)
    _say("measuring decode speed")
    speed = speed or measure_decoding(model.network)
    written = load(str(file.path), storage="stored").network
    speed_after = measure_decoding(written)
    kinds = ", ".join(f"{kind} ({count})" for kind, count in file.kinds.items())
    change = f"weights before {human(before)}: {file.nbytes / before:.2f}x"
    print(f"{file.path}  {human(file.nbytes)}, {change}; matrices {kinds}")
    if loss is not None:
        print(f"bits per byte of {loss.text} {loss.before:.4g} -> {loss.after:.4g} ({loss.after - loss.before:+.2g})")
    print(line_of(speed, speed_after))
    notes = [*model.notes, *file.notes]
    is_merged = model.base != model.source  # an adapter, whose changes the model's own bits do not hold
    if to not in PRECISIONS and not is_merged and weight_bytes(written) > before:
        notes.append(f"{to} has more bits than the model's weights: nothing is gained")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _say(stage: str) -> None:
    """Say on standard error what takes time now."""
    print(f"{stage} ...", file=sys.stderr, flush=True)


def _calibrate(model: LanguageModel, data: str) -> CalibrationReport:
    """Calibrate a model by a person's rows, with a line on standard error for each block."""
    from lmworks.run.calibration import quantize_model

    def progress(done: int, blocks: int) -> None:
        print(f"\rcalibrated {done} of {blocks} blocks", end="" if done < blocks else "\n", file=sys.stderr)

    return quantize_model(model, "q4-calibrated", data, progress=progress)
