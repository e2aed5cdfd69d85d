"""lmworks embed: vectors of the rows of a file, or of a few texts with the cosines between them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, shorten
from lmworks.commands import show
from lmworks.commands.data import data_overrides
from lmworks.commands.opening import add_backend, add_base, open_encoder

if TYPE_CHECKING:
    import numpy as np

    from lmworks.embeddings.vectors import Vectors
    from lmworks.language_model.model import LanguageModel
    from lmworks.language_model.native_encoder import NativeEncoder

DEFAULT = "minilm-l6"
POOLINGS = ("mean", "cls", "last", "first", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean", "none")
WIDTH = 50  # characters of a text in the table
FORMS = 'lmworks embed MODEL FILE --out vectors.parquet, or of texts: lmworks embed "a text" "another" --model MODEL'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A model and a file, or texts and --model; what becomes of the vectors."""
    parser.usage = "lmworks embed MODEL FILE --out F | lmworks embed TEXT... --model MODEL"
    parser.description = (
        "Make vectors of the rows of a file; or, with --model, of the texts given, whose cosines are printed. Any data "
        "setting is an option: --data.columns '{text: COLUMN}', --limit 100."
    )
    parser.add_argument(
        "words", nargs="+", metavar="MODEL FILE | TEXT", help="-: each line of standard input that is not empty"
    )
    parser.add_argument("--model", help="then all that stands before are texts")
    add_base(parser)
    add_backend(parser)
    add_pooling(parser, ("none",))
    parser.add_argument("--json", action="store_true", help="print the vectors as JSON")
    parser.add_argument("--out", metavar="F", help="write F.npy for numpy.load, or F.parquet with text and place")


def add_pooling(parser: argparse.ArgumentParser, also: tuple[str, ...] = ()) -> None:
    """How texts become vectors, for every command that makes them; ``also``: poolings that give no single vector."""
    names = tuple(name for name in POOLINGS if name != "none") + also
    more = "; none: a vector for each token" if also else ""
    parser.add_argument("--pooling", choices=names, help=f"default: the model's own, else mean{more}")
    parser.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, help="to length 1; default: as the model's folder says"
    )
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longer texts are cut; default: the model's own")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write or print the vectors."""
    if args.out and args.pooling == "none":
        raise InputError("texts have unequal numbers of tokens", "--out", "--pooling mean or first, or --json")
    if args.out:
        from lmworks.embeddings.vectors import check_path

        check_path(args.out)
    if args.model is None:
        return _embed_file(args, rest)
    if rest:
        raise InputError(f"there is no option {rest[0]} for texts", "lmworks embed", FORMS)
    return _embed_texts(args)


def _embed_file(args: argparse.Namespace, rest: list[str]) -> int:
    """Vectors of the rows of a source."""
    if len(args.words) != 2:
        raise InputError("a model and a file are needed, or texts and --model", "lmworks embed", FORMS)
    from lmworks.base.settings import build
    from lmworks.embeddings.texts import TextRows, read_texts
    from lmworks.embeddings.vectors import write_embeddings
    from lmworks.text.rows import DataSettings

    args.model, source = args.words
    settings = build(DataSettings, data_overrides(rest), "the command line")
    if source == "-":
        texts = _lines("-")
        rows = TextRows("standard input", texts, [f"text {number}" for number in range(1, len(texts) + 1)])
    else:
        rows = read_texts(source, settings)
    for note in rows.notes:
        print(f"note: {note}", file=sys.stderr)
    model = open_encoder(args)
    if args.pooling == "none":
        return _print_tokens(model, rows.texts, args)
    vectors = embed_with_progress(model, rows.texts, args)
    if args.json:
        return _print_json(rows.texts, vectors, rows.places)
    print(f"shape: {vectors.matrix.shape}")
    if args.out:
        about = {"model": args.model, "source": rows.name, "pooling": vectors.pooling.describe()}
        print(f"written: {write_embeddings(args.out, vectors, rows.texts, rows.places, about)}")
    return 0


def embed_with_progress(model: LanguageModel | NativeEncoder, texts: list[str], args: argparse.Namespace) -> Vectors:
    """Vectors of texts, with a progress bar; on standard error how they were made, what was cut, and how fast."""
    from lmworks.embeddings.vectors import embed_texts
    from lmworks.evaluate.progress import listening
    from lmworks.train.progress import EvaluationProgress

    with EvaluationProgress("embedding") as bar, listening(bar):
        vectors = embed_texts(model, texts, args.pooling, args.normalize, args.max_tokens)
    if args.pooling is None:
        own = "the model's own" if model.pooling else "the model names none"
        print(f"pooling: {vectors.pooling.describe()} ({own})", file=sys.stderr)
    if vectors.cut:
        print(
            f"note: {count_of(vectors.cut, 'text')} of {len(texts):,} cut to {vectors.limit} tokens (--max-tokens)",
            file=sys.stderr,
        )
    speed = f"{len(texts) / vectors.seconds:,.0f} texts/s, {vectors.tokens / vectors.seconds:,.0f} tokens/s"
    print(f"{count_of(len(texts), 'text')} in {vectors.seconds:.1f} s: {speed}", file=sys.stderr)
    return vectors


def _embed_texts(args: argparse.Namespace) -> int:
    """Vectors of the texts given, and their cosines."""
    texts = [line for text in args.words for line in _lines(text)]
    if not texts:
        raise InputError("there is no text", "standard input", "give one, as in: echo 'The sky is blue.'")
    model = open_encoder(args)
    if args.pooling == "none":
        return _print_tokens(model, texts, args)
    from lmworks.embeddings.vectors import write_embeddings

    vectors = embed_with_progress(model, texts, args)
    if args.json:
        return _print_json(texts, vectors, None)
    print(f"shape: {vectors.matrix.shape}")
    if args.out:
        places = [f"text {number}" for number in range(1, len(texts) + 1)]
        about = {"model": args.model, "pooling": vectors.pooling.describe()}
        print(f"written: {write_embeddings(args.out, vectors, texts, places, about)}")
    if len(texts) > 1:
        print_cosines(texts, vectors.matrix)
    return 0


def _print_json(texts: list[str], vectors: Vectors, places: list[str] | None) -> int:
    rows = [{"text": text, "vector": vector.tolist()} for text, vector in zip(texts, vectors.matrix, strict=True)]
    if places is not None:
        rows = [{"place": place, **row} for place, row in zip(places, rows, strict=True)]
    print(json.dumps(rows, ensure_ascii=False))
    return 0


def _print_tokens(model: LanguageModel | NativeEncoder, texts: list[str], args: argparse.Namespace) -> int:
    """A vector for each token: their shapes and tokens, or as JSON the vectors."""
    from lmworks.generate.text_vectors import pooling_of, text_ids, token_vectors

    pooling = pooling_of("none", args.normalize, model.pooling)
    states = model.text_states()
    ids, _ = text_ids(states.context, model.tokenizer, texts, pooling, args.max_tokens)
    vectors = token_vectors(states, ids, pooling.normalize)
    if args.json:
        rows = [{"text": text, "vector": own.tolist()} for text, own in zip(texts, vectors, strict=True)]
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    for text, row, own in zip(texts, ids, vectors, strict=True):
        print(f"{own.shape}  {shorten(text, WIDTH)}")
        print("  " + " | ".join(model.tokenizer.piece(token) for token in row))
    return 0


def print_cosines(texts: list[str], vectors: np.ndarray) -> None:
    """A table with the cosine of each two texts; vectors (n, E) of any length."""
    from lmworks.generate.text_vectors import normalized

    unit = normalized(vectors)
    cosines = (unit @ unit.T).tolist()
    headers = ["", "text", *(str(number) for number in range(1, len(texts) + 1))]
    rows = [
        (f"{number}.", shorten(text, WIDTH), *(f"{value:.3f}" for value in row))
        for number, (text, row) in enumerate(zip(texts, cosines, strict=True), 1)
    ]
    show.table(headers, rows)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in sys.stdin if line.strip()] if text == "-" else [text]
