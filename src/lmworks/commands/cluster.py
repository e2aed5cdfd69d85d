"""lmworks cluster: the rows of a file in clusters of similar texts, named by their most typical words."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, shorten
from lmworks.commands import show
from lmworks.commands.data import data_overrides
from lmworks.commands.embed import DEFAULT, add_pooling
from lmworks.commands.opening import add_base, open_model

if TYPE_CHECKING:
    import numpy as np

    from lmworks.embeddings.clusters import Cluster
    from lmworks.embeddings.texts import TextRows

TEXT_WIDTH = 70


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A file, how many clusters, where the rows go."""
    parser.description = (
        "Divide the rows of a file into clusters of similar texts. Each is named by its most typical words. Any data "
        "setting is an option: --data.columns '{text: COLUMN}'."
    )
    parser.add_argument("file", help="a file, a folder or a named data set")
    parser.add_argument(
        "--out", metavar="F", help="write place, text, cluster of each row: .csv, .tsv, .json, .jsonl, .parquet"
    )
    add_cluster_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """The model and how clusters are found, of every command that finds some."""
    parser.add_argument("--model", default=DEFAULT, help=f"default: {DEFAULT}")
    add_base(parser)
    parser.add_argument("--clusters", type=int, metavar="N", help="how many, with k-means (default 8, or fewer of few)")
    parser.add_argument("--algorithm", choices=("kmeans", "hdbscan"), default="kmeans", help="default: kmeans")
    parser.add_argument("--min-size", type=int, default=5, metavar="N", help="fewest rows, with hdbscan (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of k-means (default 0)")
    add_pooling(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the clusters; write the rows."""
    from lmworks.text.row_files import check_format, write_rows

    check_format(args.out)
    rows, _, clusters = find_clusters(args, rest)
    numbers = {row: cluster for cluster in clusters for row in cluster.rows}
    if args.json:
        values = [
            {"cluster": cluster.number, "size": len(cluster.rows), "words": cluster.words, "rows": cluster.rows}
            for cluster in clusters
        ]
        print(json.dumps(values, ensure_ascii=False))
    else:
        _print(rows, clusters)
    if args.out:
        written = [
            {
                "place": place,
                "text": text,
                **({"label": rows.labels[row]} if rows.labels else {}),
                "cluster": numbers[row].number,
                "cluster_words": numbers[row].title,
            }
            for row, (place, text) in enumerate(zip(rows.places, rows.texts, strict=True))
        ]
        print(f"written: {write_rows(args.out, written)}", file=sys.stderr)
    return 0


def find_clusters(args: argparse.Namespace, rest: list[str]) -> tuple[TextRows, np.ndarray, list[Cluster]]:
    """The rows of a file, their vectors (n, E) of length 1, and their clusters."""
    from lmworks.base.settings import build
    from lmworks.embeddings.cache import cached_vectors
    from lmworks.embeddings.clusters import cluster_texts
    from lmworks.embeddings.texts import read_texts
    from lmworks.evaluate.progress import listening
    from lmworks.text.rows import DataSettings
    from lmworks.train.progress import EvaluationProgress

    if args.normalize is False:
        raise InputError("clusters are found among vectors of length 1", "--no-normalize", "leave it out")
    rows = read_texts(args.file, build(DataSettings, data_overrides(rest), "the command line"))
    model = open_model(args)
    with EvaluationProgress("embedding") as bar, listening(bar):
        matrix, _ = cached_vectors(model, rows.texts, args.pooling, True, args.max_tokens)
    clusters = cluster_texts(rows.texts, matrix, args.clusters, args.algorithm, args.min_size, args.seed)
    return rows, matrix, clusters


def _print(rows: TextRows, clusters: list[Cluster]) -> None:
    from lmworks.embeddings.clusters import EXAMPLES, NONE

    print(f"{count_of(len(rows.texts), 'text')} of {rows.name}")
    cells = []
    for cluster in clusters:
        examples = cluster.rows[:EXAMPLES] if cluster.number != NONE else []
        shown = "\n".join(shorten(rows.texts[row], TEXT_WIDTH) for row in examples)
        name = "-" if cluster.number == NONE else cluster.number
        cells.append((name, f"{len(cluster.rows):,}", cluster.title, shown))
    show.table(["cluster", "texts", "typical words", "nearest to the centre"], cells)
