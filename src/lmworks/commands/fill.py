"""lmworks fill: what a model puts into the blanks of a text, as tables with bars, and the text filled."""

from __future__ import annotations

import argparse
import json
import sys

from lmworks.commands import show
from lmworks.commands.opening import add_base, open_model

ABOUT = """Fill the blanks of a text with a model of masked words (as BERT) or of spans (as T5). A blank is [MASK],
<mask> or ___. Probabilities are the model's own: of one token, or of a whole span where the model writes spans."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The text, which model, how many."""
    parser.description = ABOUT
    parser.add_argument("text", help='for example "I love eating [MASK] in my fruit salad"; -: standard input')
    parser.add_argument("--model", required=True, help="a folder, run, alias, hub:owner/name or pypi:distribution")
    add_base(parser)
    parser.add_argument("--top", type=int, default=5, help="how many pieces for each blank (default 5)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print a table for each blank, then the text."""
    text = sys.stdin.read().strip() if args.text == "-" else args.text
    filled = open_model(args).fill(text, args.top)
    if args.json:
        blanks = [[{"piece": piece, "probability": value} for piece, value in blank] for blank in filled]
        print(json.dumps({"text": filled.text, "blanks": blanks}, ensure_ascii=False, indent=1))
        return 0
    for number, blank in enumerate(filled, 1):
        rows = [(repr(piece), f"{value:.1%}", show.bar(value)) for piece, value in blank]
        show.table(("piece", "probability", ""), rows, title=f"blank {number}" if len(filled) > 1 else "")
        print()
    print(filled.text)
    return 0
