"""lmworks embed: vectors of texts, and how alike they are."""

from __future__ import annotations

import argparse
import io
import json
import sys
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.commands import show
from lmworks.commands.opening import add_base, open_model

if TYPE_CHECKING:
    import torch

    from lmworks.language_model.model import LanguageModel

DEFAULT = "minilm-l6"
POOLINGS = ("mean", "first", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "none")
WIDTH = 50  # characters of a text in the table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The texts, which model, what becomes of the vectors."""
    parser.description = "Make vectors of texts; print their shape, and the cosine of the angle between each two."
    parser.add_argument("text", nargs="+", help="texts; -: each line of standard input that is not empty")
    parser.add_argument("--model", default=DEFAULT, help=f"default: {DEFAULT}")
    add_base(parser)
    parser.add_argument(
        "--pooling", choices=POOLINGS, help="default: the model's own, else mean; none: a vector for each token"
    )
    parser.add_argument("--json", action="store_true", help="print the vectors as JSON")
    parser.add_argument("--out", metavar="F.npy", help="write the vectors for numpy.load (not with --pooling none)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print shapes and similarities, or the vectors."""
    if args.out and args.pooling == "none":
        raise InputError("texts have unequal numbers of tokens", "--out", "--pooling mean or first, or --json")
    if args.out and not args.out.endswith(".npy"):
        raise InputError(f"{args.out} is no .npy file", "--out", "name it so: numpy reads and writes that form")
    texts = [line for text in args.text for line in _lines(text)]
    if not texts:
        raise InputError("there is no text", "standard input", 'give one, as in: lmworks embed "The sky is blue."')
    model = open_model(args)
    vectors = model.embed(texts, args.pooling)
    _tell(model, texts, args.pooling)
    if args.json:
        rows = zip(texts, vectors, strict=True)
        print(json.dumps([{"text": text, "vector": vector.tolist()} for text, vector in rows], ensure_ascii=False))
        return 0
    if args.pooling == "none":
        for text, states in zip(texts, vectors, strict=True):
            print(f"{tuple(states.shape)}  {_short(text)}")
            ids = model.tokenizer.encode(text, special=True)
            print("  " + " | ".join(model.tokenizer.piece(token) for token in ids))
        return 0
    import numpy as np
    import torch

    matrix = torch.as_tensor(vectors)
    print(f"shape: {tuple(matrix.shape)}")
    if args.out:
        content = io.BytesIO()
        np.save(content, matrix.numpy())
        atomic_write(args.out, content.getvalue())
        print(f"written: {args.out}")
    if len(texts) > 1:
        _compare(texts, matrix)
    return 0


def _tell(model: LanguageModel, texts: list[str], pooling: str | None) -> None:
    """On standard error: how the vectors were made, and which texts are longer than the encoder was trained on."""
    own = model.pooling
    if pooling is None:
        way = f"{own.describe()} (the model's own)" if own else "mean, normalized (the model names none)"
        print(f"pooling: {way}", file=sys.stderr)
    if own is None or own.max_tokens is None:
        return
    long = sum(len(model.tokenizer.encode(text, special=True)) > own.max_tokens for text in texts)
    if long:
        fault = f"{long} of {len(texts)} texts have more than {own.max_tokens} tokens, the most that it was trained on"
        print(f"note: {fault}; they are read whole", file=sys.stderr)


def _compare(texts: list[str], vectors: torch.Tensor) -> None:
    """The cosine of each two texts."""
    cosines = (vectors @ vectors.T).tolist()
    headers = ["", "text", *(str(number) for number in range(1, len(texts) + 1))]
    rows = [
        (f"{number}.", _short(text), *(f"{value:.3f}" for value in row))
        for number, (text, row) in enumerate(zip(texts, cosines, strict=True), 1)
    ]
    show.table(headers, rows)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in sys.stdin if line.strip()] if text == "-" else [text]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
