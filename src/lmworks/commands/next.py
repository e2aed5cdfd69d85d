"""lmworks next: what a model expects after a text, as a table with bars."""

from __future__ import annotations

import argparse

from lmworks.commands import show

DEFAULT = "smollm2-135m-instruct"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The text, how many, which model."""
    parser.description = "Show the likeliest next tokens after a text, with their probabilities."
    parser.add_argument("text", help='for example "The sky is"')
    parser.add_argument("--model", default=DEFAULT, help=f"default: {DEFAULT}")
    parser.add_argument("--top", type=int, default=10, help="how many tokens (default 10)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the distribution."""
    from lmworks.opening import load

    found = load(args.model).next(args.text, args.top)
    rows = [(repr(piece), f"{probability:.1%}", show.bar(probability)) for piece, probability in found]
    show.table(("token", "probability", ""), rows, title=f"after {args.text!r}")
    print(f"the other tokens together: {1 - sum(probability for _, probability in found):.1%}")
    return 0
