"""The model that a command names: its options, and opening it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


def add_base(parser: argparse.ArgumentParser) -> None:
    """Where the base of an adapter lies, for every command that opens a model."""
    text = "of an adapter: the model that it was trained on, where that is no longer at its place"
    parser.add_argument("--base", metavar="FOLDER", help=text)


def add_head(parser: argparse.ArgumentParser) -> None:
    """Which head a model has, for commands that use one."""
    parser.add_argument("--head", metavar="NAME", help="of a run of several tasks: the task whose head is used")


def open_model(args: argparse.Namespace) -> LanguageModel:
    """The model that the arguments name, made fast where that is asked for; its notes go to standard error."""
    from lmworks.run.checkpoint_model import load

    fast = getattr(args, "fast", False)
    model = load(args.model, storage="stored" if fast else None, base=args.base, head=getattr(args, "head", None))
    for note in model.notes:
        print(f"note: {note}", file=sys.stderr)
    return model.prepare() if fast else model
