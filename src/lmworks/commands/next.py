"""lmworks next: what a model expects after a text, as a table with bars: tokens, or which of some sentences."""

from __future__ import annotations

import argparse

from lmworks.base.errors import InputError
from lmworks.commands import show
from lmworks.commands.opening import add_backend, add_base, open_model, open_writer

DEFAULT = "smollm2-135m-instruct"
ABOUT = """Show the likeliest next tokens after a text, with their probabilities. With --sentence: how likely each of
these sentences follows it, by a model with a head for it (as BERT has)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The text, how many, which model."""
    parser.description = ABOUT
    parser.add_argument("text", help='for example "The sky is"')
    parser.add_argument("--model", default=DEFAULT, help=f"default: {DEFAULT}")
    add_base(parser)
    add_backend(parser)
    parser.add_argument("--top", type=int, default=10, help="how many tokens (default 10)")
    parser.add_argument("--sentence", action="append", metavar="S", help="does this sentence follow? may be repeated")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the distribution."""
    if args.sentence:
        if args.backend == "native":
            hint = "leave --backend out"
            raise InputError("the native engine has no head that compares sentences", "--sentence", hint)
        encoder = open_model(args)
        follows = [(sentence, encoder.next_sentence(args.text, sentence)) for sentence in args.sentence]
        rows = [(sentence, f"{value:.1%}", show.bar(value)) for sentence, value in follows]
        show.table(("sentence", "it follows", ""), rows, title=f"after {args.text!r}")
        return 0
    model = open_writer(args)
    tokens = model.next(args.text, args.top)
    rows = [(repr(piece), f"{probability:.1%}", show.bar(probability)) for piece, probability in tokens]
    show.table(("token", "probability", ""), rows, title=f"after {args.text!r}")
    print(f"the other tokens together: {1 - sum(probability for _, probability in tokens):.1%}")
    print(f"signature: {model.signature}")
    return 0
