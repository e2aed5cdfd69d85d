"""lmworks share: the model of a run with its card, on the hub, in a folder, or as a demo."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lmworks.commands.opening import add_head

ABOUT = """Share the model of a run, its adapter merged, as a Hugging Face folder with a model card: what it learned
from, its measured card, its limits, its energy. Texts of the rows are not in the card."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN hub:owner/name, --to FOLDER, --space FOLDER."""
    parser.description = ABOUT
    parser.add_argument("run", help="the folder of a run; of an unfinished one its best checkpoint is taken")
    parser.add_argument("target", nargs="?", metavar="hub:owner/name", help="upload it there")
    add_head(parser)
    parser.add_argument("--to", metavar="FOLDER", help="write the same into a folder")
    parser.add_argument("--space", metavar="FOLDER", help="write a demo as a Hugging Face Space, a page of Gradio")
    names = ["float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", choices=names, default=names[0], help="of the weights; default: float32")
    parser.add_argument("--license", metavar="NAME", help="as the hub names it; default: that of the base, if known")
    parser.add_argument("--language", metavar="CODE", help="of the texts, such as en")
    parser.add_argument("--private", action="store_true", help="a new repository is seen by its owner alone")
    parser.add_argument("--overwrite", action="store_true", help="replace what was shared there before")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Share and print where."""
    from lmworks.base.files import folder_size
    from lmworks.sharing.share import share

    shared = share(
        args.run,
        args.target,
        folder=args.to,
        space=args.space,
        head=args.head,
        dtype=args.dtype,
        licence=args.license,
        language=args.language,
        private=args.private,
        overwrite=args.overwrite,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    for note in shared.notes:
        print(f"note: {note}", file=sys.stderr)
    for place in (shared.folder, shared.space):
        if place is not None:
            print(f"{place}  {folder_size(place) / 1e6:,.0f} MB")
    if shared.space is not None:
        print(f"try the demo: python {Path(shared.space) / 'app.py'}")
    if shared.commit is not None:
        print(shared.commit)
    return 0
