"""lmworks search: the rows of a file that are nearest in meaning to a query; figures of a model on judged queries."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from lmworks.base import figures
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, shorten
from lmworks.commands import show
from lmworks.commands.data import data_overrides
from lmworks.commands.embed import DEFAULT, add_pooling
from lmworks.commands.opening import add_base, open_model

FORMS = 'lmworks search FILE "a query", or lmworks search --evaluate FOLDER'
TEXT_WIDTH = 160


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A file and a query, or a folder of judged queries."""
    parser.usage = 'lmworks search FILE "QUERY" [--model MODEL] [--top N] | lmworks search --evaluate FOLDER'
    parser.description = (
        "Search the rows of a file by meaning: those whose vectors have the largest cosine with the query's. The "
        "vectors are kept in the cache, so that the next search of the same rows is fast. Any data setting is an "
        "option: --data.columns '{text: COLUMN}'."
    )
    parser.add_argument("words", nargs="*", metavar="FILE QUERY", help="a file, a folder or a named data set; a text")
    parser.add_argument("--model", default=DEFAULT, help=f"default: {DEFAULT}")
    add_base(parser)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many rows (default 5)")
    add_pooling(parser)
    parser.add_argument(
        "--evaluate",
        metavar="FOLDER",
        help="in BEIR's layout (corpus.jsonl, queries.jsonl, qrels.tsv): recall@k, MRR and nDCG@10 of the model",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print what was found, or the figures."""
    if args.normalize is False:
        raise InputError("a search compares by the cosine, for which lengths are 1", "--no-normalize", "leave it out")
    if args.evaluate:
        if args.words or rest:
            raise InputError("the folder holds texts and queries itself", "--evaluate", "give nothing else")
        return _evaluate(args)
    if len(args.words) != 2:
        raise InputError("a file and a query are needed", "lmworks search", FORMS)
    return _search(args, rest)


def _search(args: argparse.Namespace, rest: list[str]) -> int:
    from lmworks.base.settings import build
    from lmworks.embeddings.search import search
    from lmworks.embeddings.texts import read_texts
    from lmworks.evaluate.progress import listening
    from lmworks.text.rows import DataSettings
    from lmworks.train.progress import EvaluationProgress

    source, query = args.words
    rows = read_texts(source, build(DataSettings, data_overrides(rest), "the command line"))
    model = open_model(args)
    with EvaluationProgress("embedding") as bar, listening(bar):
        result = search(model, rows, query, args.top, args.pooling, args.max_tokens)
    origin = ", their vectors from the cache" if result.cached else ""
    print(f"{count_of(len(rows.texts), 'text')} of {rows.name} searched{origin}", file=sys.stderr)
    if result.cut:
        print(f"note: {count_of(result.cut, 'text')} cut to what the model reads (--max-tokens)", file=sys.stderr)
    if args.json:
        print(json.dumps([asdict(hit) for hit in result.hits], ensure_ascii=False))
        return 0
    cells = [(f"{hit.score:.3f}", hit.place, shorten(hit.text, TEXT_WIDTH)) for hit in result.hits]
    show.table(["cosine", "place", "text"], cells)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from lmworks.embeddings.search import RANKED, evaluate_search
    from lmworks.evaluate.progress import listening
    from lmworks.text.beir import read_beir
    from lmworks.train.progress import EvaluationProgress

    data = read_beir(args.evaluate)
    model = open_model(args)
    with EvaluationProgress("embedding") as bar, listening(bar):
        result = evaluate_search(model, data, args.pooling, args.max_tokens)
    intervals = result.intervals()
    if args.json:
        values = {name: interval._asdict() for name, interval in intervals.items()}
        print(json.dumps({"queries": result.queries, "documents": len(data.documents), "figures": values}))
        return 0
    print(
        f"{args.model}: {result.queries:,} queries, {count_of(len(data.documents), 'document')}, "
        f"the first {RANKED} of each ranking"
    )
    cells = [
        (name, f"{interval.value:.4f}", figures.interval(interval.low, interval.high))
        for name, interval in intervals.items()
    ]
    show.table(["", "mean", "95 % interval over queries"], cells)
    return 0
