"""lmworks combine: write a weighted sum of LoRA adapters as an adapter."""

from __future__ import annotations

import argparse
import sys

from lmworks.base.errors import InputError
from lmworks.base.figures import byte_size
from lmworks.base.files import folder_size
from lmworks.commands.opening import add_base

ABOUT = """Write a weighted sum of LoRA adapters of one base as a new adapter, which lmworks and peft open."""
HINT = "write FOLDER=WEIGHT, such as runs/faq=0.7"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The adapters with their weights, and how they are added."""
    parser.description = ABOUT
    parser.add_argument(
        "adapter", nargs="+", metavar="FOLDER=WEIGHT", help="a run or a folder with an adapter, and its weight"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to: a new or empty folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an adapter that stands there")
    parser.add_argument(
        "--how",
        choices=["cat", "svd", "linear"],
        default="cat",
        help="cat (default): exactly the sum, its rank is the sum of the ranks; svd: the nearest sum of a rank; "
        "linear: sums of the factors, of equal ranks",
    )
    parser.add_argument("--rank", type=int, metavar="N", help="of svd; default: the largest rank of the adapters")
    add_base(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Open the base with all adapters, add them, write the sum."""
    from pathlib import Path

    from lmworks.adapt.adapter_base import DEFAULT
    from lmworks.families.folder import check_place
    from lmworks.language_model.opening import open_saved_model

    weights = dict(_weighted(word) for word in args.adapter)
    if len(weights) < len(args.adapter):
        raise InputError("an adapter is named twice", "FOLDER=WEIGHT", "name each once, with the sum of its weights")
    check_place(Path(args.out), args.overwrite)
    model = open_saved_model(next(iter(weights)), base=args.base)
    if DEFAULT not in model.adapters:
        raise InputError("holds no adapter", model.source, "give runs or folders of LoRA adapters")
    model.remove_adapter(DEFAULT)
    model.notes.clear()
    for source in weights:
        model.add_adapter(source, source)
    for note in model.notes:
        print(f"note: {note}", file=sys.stderr)
    model.combine_adapters(weights, "sum", args.how, args.rank)
    folder = model.save_adapter(args.out, "sum", overwrite=args.overwrite)
    summands = " + ".join(f"{weight:g} {source}" for source, weight in weights.items())
    print(f"{folder}  {byte_size(folder_size(folder))}, {summands}")
    return 0


def _weighted(word: str) -> tuple[str, float]:
    source, sign, weight = word.rpartition("=")
    try:
        return source, float(weight)
    except ValueError:
        pass
    fault = f"{weight!r} is no weight" if sign else "has no weight"
    raise InputError(fault, word, HINT)
