"""lmworks metrics: scores of predictions against references, with signatures and intervals."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lmworks.base.errors import InputError
from lmworks.commands import show
from lmworks.commands.data import data_overrides

ABOUT = """Score predictions against references: plain text a line each, or columns of .csv, .tsv, .json, .jsonl,
.parquet or .conll. Several REFERENCES are several references of each row; without any, they are a column beside the
predictions, or metrics of the texts alone are computed. Each score has its interval (bootstrap over rows) and its
signature: scores may be compared where signatures are equal. --baseline tests the difference from other predictions of
the same rows. What each metric measures and hides: docs/metrics.md."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PREDICTIONS REFERENCES ... --metrics A,B --baseline FILE."""
    parser.description = ABOUT
    parser.add_argument("predictions", nargs="?", help="a file of predictions")
    parser.add_argument("references", nargs="*", help="a file of references; several: several references of each row")
    parser.add_argument("--metrics", metavar="A,B", help="default: what is usual for such rows; --list shows all")
    parser.add_argument("--list", action="store_true", help="the metrics that there are")
    parser.add_argument("--baseline", metavar="FILE", help="other predictions of the same rows, compared in pairs")
    tests = ["bootstrap", "mcnemar", "permutation"]
    text = "of the difference (default: mcnemar where rows are right or wrong, else bootstrap)"
    parser.add_argument("--test", choices=tests, help=text)
    parser.add_argument("--prediction-field", metavar="COLUMN", help="the column of predictions")
    parser.add_argument("--reference-field", metavar="COLUMN,…", help="the column of references; several: several each")
    parser.add_argument("--lowercase", action="store_true", help="read texts in lower case")
    parser.add_argument("--tokenize", default="13a", metavar="NAME", help="sacrebleu's tokenizer (default 13a)")
    parser.add_argument("--stem", action="store_true", help="ROUGE compares stems of words")
    parser.add_argument("--positive", metavar="LABEL", help="areas under curves of this label, not the labels' mean")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print a table of scores, what they consist of, notes and signatures."""
    from lmworks.evaluate.metric_report import measure
    from lmworks.evaluate.predicted_rows import MetricOptions
    from lmworks.evaluate.prediction_files import Fields
    from lmworks.reports import metric_table
    from lmworks.text.rows import DataSettings

    if args.list:
        return _list()
    if args.predictions is None:
        raise InputError("no file of predictions is given", "PREDICTIONS", "lmworks metrics PREDICTIONS REFERENCES")
    if args.test and not args.baseline:
        raise InputError("a test compares with other predictions", "--test", "give --baseline FILE")
    report = measure(
        args.predictions,
        [Path(path) for path in args.references] or None,
        metrics=args.metrics.split(",") if args.metrics is not None else None,
        baseline=args.baseline,
        test=args.test,
        options=MetricOptions(args.lowercase, args.tokenize, args.stem, args.positive),
        fields=Fields(args.prediction_field, tuple(args.reference_field.split(",")) if args.reference_field else ()),
        settings=DataSettings(**data_overrides(rest)),
        seed=args.seed,
    )
    if args.json:
        print(json.dumps(report.as_json(), ensure_ascii=False, indent=1))
        return 0
    heads, cells = metric_table.table(report)
    show.table(heads, cells, f"{args.predictions}, {report.rows:,} {'row' if report.rows == 1 else 'rows'}")
    for line in metric_table.lines(report):
        show.line(line)
    return 0


def _list() -> int:
    """The metrics by name: title, what they are of, which way is better."""
    from lmworks.evaluate.metric_registry import METRICS

    rows = [(name, metric.title, metric.reads, metric.better or "neither") for name, metric in METRICS.items()]
    show.table(["name", "metric", "of", "better"], rows)
    return 0
