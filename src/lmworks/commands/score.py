"""lmworks score: how well a model predicts texts."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.base.figures import shorten
from lmworks.commands.opening import add_backend, add_base, open_writer
from lmworks.text.plain_text import read_text, split_lines

if TYPE_CHECKING:
    from lmworks.evaluate.text_windows import Score

TEXT_WIDTH = 60  # characters of a text in its line
ABOUT = """How well a model predicts texts: nats (-log p, summed), tokens scored, perplexity (exp of a token's nats;
comparable with the same tokenizer alone), bits per byte and per character (comparable across models); less is better. A
text's first token counts only where the model opens texts with a token of its own. A text longer than the context is
read in windows that advance by --stride tokens, each token scored once. The signature says what computed them, and in
which formats the weights are. lmworks metrics compares the JSON of two models."""
UNITS = ("nats", "tokens", "bytes", "characters")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, texts or files of them."""
    parser.description = ABOUT
    parser.add_argument("model", help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution")
    add_base(parser)
    add_backend(parser)
    parser.add_argument("text", nargs="*", help="texts to score; -: standard input")
    parser.add_argument("--file", action="append", default=[], metavar="F", help="score a UTF-8 file as one text")
    parser.add_argument("--lines", action="store_true", help="each line that is not empty is a text of its own")
    parser.add_argument("--context", type=int, metavar="N", help="tokens of a window (default: the model's context)")
    parser.add_argument(
        "--stride", type=int, metavar="N", help="tokens by which windows advance (default: half of one)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print a line a text, and a total where there are several."""
    texts = _texts(args)
    scores = open_writer(args).score(texts, context=args.context, stride=args.stride)
    if args.json:
        print(json.dumps(list(map(_object, texts, scores)), ensure_ascii=False, indent=1))
        return 0
    print(f"{'nats':>12}  {'tokens':>7}  {'perplexity':>10}  {'bits/byte':>9}  {'bits/char':>9}  text")
    for score, text in zip(scores, texts, strict=True):
        print(_line(score, shorten(text, TEXT_WIDTH)))
    if len(scores) > 1:
        print(_line(_total(scores), "(all)"))
    for signature in dict.fromkeys(score.signature for score in scores):
        print(f"signature: {signature}")
    return 0


def _texts(args: argparse.Namespace) -> list[str]:
    texts = [sys.stdin.read() if text == "-" else text for text in args.text]
    for name in args.file:
        texts.append(read_text(name))
    if args.lines:
        texts = [line for text in texts for line in split_lines(text) if line.strip()]
    if not any(texts):
        raise InputError("there is no text to score", "TEXT", 'lmworks score MODEL "The sky is blue." or --file F')
    return texts


def _total(scores: Sequence[Score]) -> Score:
    from lmworks.evaluate.text_windows import Score

    sums = {name: sum(getattr(score, name) for score in scores) for name in UNITS}
    return Score(**sums)


def _object(text: str, score: Score) -> dict[str, object]:
    """The score of a text as JSON, which has no NaN and no infinity."""
    figures = {name: getattr(score, name) for name in ("perplexity", "bits_per_byte", "bits_per_character")}
    known = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return {"text": text} | {name: getattr(score, name) for name in UNITS} | known | {"signature": score.signature}


def _line(score: Score, text: str) -> str:
    cells = [_cell(score.perplexity, 10, ".5g"), _cell(score.bits_per_byte, 9), _cell(score.bits_per_character, 9)]
    return f"{score.nats:12.4f}  {score.tokens:7d}  {'  '.join(cells)}  {text}"


def _cell(value: float, width: int, form: str = ".4f") -> str:
    return f"{'-' if math.isnan(value) else format(value, form):>{width}}"
