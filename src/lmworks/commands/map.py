"""lmworks map: the rows of a file as points in a plane, in an HTML page that shows each text on hover."""

from __future__ import annotations

import argparse

from lmworks.base.errors import InputError
from lmworks.commands.cluster import add_cluster_options, find_clusters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A file, the page, how points are placed and coloured."""
    parser.description = (
        "Draw the rows of a file as points, near one another where their texts are similar, in one HTML file. Points "
        "are coloured by the rows' labels, else by clusters. Any data setting is an option: --limit 1000."
    )
    parser.add_argument("file", help="a file, a folder or a named data set")
    parser.add_argument("--out", metavar="F.html", default="map.html", help="the page (default map.html)")
    parser.add_argument("--method", choices=("pca", "umap"), default="pca", help="default: pca; umap: an extra")
    parser.add_argument("--colour", choices=("label", "cluster"), help="default: label, where the rows have labels")
    add_cluster_options(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write the page."""
    from lmworks.base.files import atomic_write
    from lmworks.embeddings.map_page import MapPoints, project, render_map

    if not args.out.endswith((".html", ".htm")):
        raise InputError(f"{args.out} is no .html file", "--out", "name it so: browsers open it")
    rows, matrix, clusters = find_clusters(args, rest)
    coordinates, method = project(matrix, args.method, args.seed)
    if args.colour == "label" and rows.labels is None:
        raise InputError("the rows have no labels", "--colour label", "--colour cluster")
    groups = rows.labels
    if groups is None or args.colour == "cluster":
        titles = {row: cluster.title for cluster in clusters for row in cluster.rows}
        groups = [titles[row] for row in range(len(rows.texts))]
    points = MapPoints(coordinates, rows.texts, rows.places, groups, method)
    title = rows.name.rstrip("/").rpartition("/")[2]
    atomic_write(args.out, render_map(points, title, f"Vectors of {args.model}", args.seed))
    print(f"written: {args.out} ({method})")
    return 0
