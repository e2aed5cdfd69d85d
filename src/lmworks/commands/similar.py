"""lmworks similar: the cosine between texts, or of one word in two texts, layer by layer."""

from __future__ import annotations

import argparse
import json

from lmworks.base.errors import InputError
from lmworks.commands import show
from lmworks.commands.embed import DEFAULT, add_pooling, print_cosines
from lmworks.commands.opening import add_backend, add_base, open_encoder, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Texts; a word that stands in both."""
    parser.description = (
        "Print the cosine between texts. With --word: between the vectors of that word in two texts, of the embedding "
        "layer and of each block; of a word of several tokens their mean."
    )
    parser.add_argument("text", nargs="+", help="two texts or more")
    parser.add_argument("--model", default=DEFAULT, help=f"default: {DEFAULT}")
    add_base(parser)
    add_backend(parser)
    parser.add_argument("--word", help="a word that stands in both texts")
    add_pooling(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the cosines."""
    if len(args.text) < 2 or (args.word and len(args.text) != 2):
        most = "two texts" if args.word else "at least two texts"
        raise InputError(f"{most} are compared", "lmworks similar", 'lmworks similar "a text" "another"')
    return _word(args) if args.word else _texts(args)


def _texts(args: argparse.Namespace) -> int:
    from lmworks.embeddings.vectors import embed_texts
    from lmworks.generate.text_vectors import normalized

    unit = normalized(embed_texts(open_encoder(args), args.text, args.pooling, True, args.max_tokens).matrix)
    if args.json:
        print(json.dumps({"texts": args.text, "cosines": (unit @ unit.T).tolist()}, ensure_ascii=False))
    elif len(args.text) == 2:
        print(f"cosine {float(unit[0] @ unit[1]):.4f}")
    else:
        print_cosines(args.text, unit)
    return 0


def _word(args: argparse.Namespace) -> int:
    from lmworks.generate.word_states import word_similarity

    if args.backend == "native":
        raise InputError("the native engine gives no vectors of single layers", "--backend", "leave it out with --word")
    model = open_model(args)
    cosines = word_similarity(model.network, model.tokenizer, args.word, (args.text[0], args.text[1]))
    names = ["embedding layer", *(f"block {number}" for number in range(1, len(cosines)))]
    if args.json:
        layers = [{"layer": name, "cosine": value} for name, value in zip(names, cosines, strict=True)]
        print(json.dumps({"word": args.word, "layers": layers}, ensure_ascii=False))
        return 0
    rows = [(name, f"{value:.4f}", show.bar(value)) for name, value in zip(names, cosines, strict=True)]
    show.table(["layer", "cosine", ""], rows)
    return 0
