"""lmworks predict: the labels that a classifier gives the rows of a file, and how good they are."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from lmworks.base import figures
from lmworks.base.errors import InputError
from lmworks.base.files import expand_home
from lmworks.commands import show
from lmworks.commands.data import data_overrides
from lmworks.commands.opening import add_backend, add_base, add_head, open_classifier
from lmworks.commands.predict_answers import show_answers
from lmworks.commands.predict_tags import show_tags
from lmworks.evaluate.prediction import PredictedValue, Prediction

if TYPE_CHECKING:
    from lmworks.run.predict_file import Predictions

ABOUT = """Give each row of a file a label, answer its question from its context, or tag its words, as the model was
trained. Where the rows have labels, accuracy, F1 and the confusion matrix are printed too. The columns are those of
the run that trained the model, else by their usual names; any data setting is an option: --data.columns '{text:
COLUMN, label: COLUMN}'. One text alone: lmworks predict MODEL --text "..."."""
SHOWN, WIDTH = 5, 60  # rows that are printed, characters of each text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL FILE --out FILE, or MODEL --text TEXT."""
    parser.description = ABOUT
    parser.add_argument("model", help="a run or folder of a classifier")
    add_base(parser)
    add_head(parser)
    add_backend(parser)
    parser.add_argument("data", nargs="?", help="a file, a folder, a named data set or hub:owner/name")
    parser.add_argument("--text", metavar="TEXT", help="one text, instead of a file")
    parser.add_argument("--out", metavar="FILE", help="write the rows with predictions: .csv, .jsonl, .parquet ...")
    parser.add_argument("--rows", type=int, default=SHOWN, metavar="N", help=f"how many to print (default {SHOWN})")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Predict, print a few rows and the figures, write the file."""
    from lmworks.model.head_requests import SPANS
    from lmworks.run import predict_file
    from lmworks.text.rows import DataSettings

    given = data_overrides(rest)
    _check_words(args, given)
    model = open_classifier(args)
    settings_for, predict, show_rows, write = _functions(model, args.model, args.head)
    if args.text is not None and predict_file.has_head(model, SPANS):
        hint = f'lmworks answer {args.model} --context FILE --question "QUESTION"'
        raise InputError("the model answers questions about a text, and gives it no label", "--text", hint)
    source: Any = args.data if args.text is None else [{"text": args.text}]
    settings = DataSettings(kind="text") if args.data is None else settings_for(args.model, source, given, args.head)
    predict_file.check_out(args.out, source)
    predicted = predict(model, source, settings)
    notes = [] if args.data is None else predict_file.notes_of(predicted.table, args.model, source, args.head)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    show_rows(predicted, max(args.rows, 0))
    if args.out:
        print(f"written: {write(predicted, source, settings, args.out)}")
    return 0


def _check_words(args: argparse.Namespace, given: dict[str, Any]) -> None:
    """Refuse a text in place of a file, neither of them, and a file or its settings beside a text.

    Raises:
        InputError: it is so.
    """
    if args.data is None and args.text is None:
        hint = f'lmworks predict {args.model} FILE, or lmworks predict {args.model} --text "TEXT"'
        raise InputError("neither a file nor a text is given", "FILE", hint)
    if args.text is not None and (args.data is not None or given):
        fault = "is a text, beside which no file is read"
        raise InputError(fault, "--text", "leave out the file and its settings, or --text")
    if args.data is not None and " " in args.data and not expand_home(args.data).exists():
        one = f"lmworks predict {args.model} --text {shlex.quote(args.data)}"
        raise InputError("there is no such file", args.data, f"to label a text: {one}; several, one a line: FILE.txt")


def _functions(model: Any, source: str, head: str | None) -> tuple[Callable[..., Any], ...]:
    """Four functions, by the model's head: they read the settings of the rows, predict, print, and write.

    Raises:
        InputError: the model has no head, and is no classifier.
    """
    from lmworks.model.head_requests import SPANS, TOKENS
    from lmworks.run import predict_file  # the others import torch

    if predict_file.has_head(model, SPANS):
        from lmworks.run import predict_answers

        shown = (show_answers, predict_answers.write_answers)
        return predict_answers.answers_settings, predict_answers.answer_rows, *shown
    if predict_file.has_head(model, TOKENS):
        from lmworks.run import predict_tags

        return predict_file.settings_for, predict_tags.tag_rows, show_tags, predict_tags.write_tags
    if not hasattr(model, "predict"):
        raise InputError("is no classifier", source, "train one: lmworks tune tfidf-logreg FILE")
    predict = partial(predict_file.predict_rows, names=predict_file.label_names(source, head))
    return predict_file.settings_for, predict, show_labels, predict_file.write_predictions


def _shown(predicted: Prediction | PredictedValue) -> tuple[str, ...]:
    """The cells of a prediction: the label or value, and a probability where there is one."""
    if isinstance(predicted, PredictedValue):
        return f"{predicted.value:.4g}", ""
    share = predicted.probabilities.get(predicted.label)
    return predicted.label or "none", "" if share is None else f"{share:.3f}"


def show_labels(predictions: Predictions, count: int) -> None:
    """The first rows, how often each label was predicted, and the figures."""
    from rich.console import Console

    from lmworks.evaluate.metrics import bootstrap_interval
    from lmworks.reports import classification, classification_tables, terminal

    cells = [
        (
            figures.shorten(" · ".join(row.texts), WIDTH),
            *predictions.right[number : number + 1],
            *_shown(prediction),
        )
        for number, (row, prediction) in enumerate(
            zip(predictions.table.rows[:count], predictions.predicted, strict=False)
        )
    ]
    if cells:
        right = "value" if predictions.regression is not None else "label"
        heads = ("text", *([right] if predictions.right else []), "prediction", "probability")
        of_values = isinstance(predictions.predicted[0], PredictedValue)
        show.table(heads[:-1] if of_values else heads, [row[:-1] for row in cells] if of_values else cells)
    total = figures.count_of(len(predictions.predicted), "row")
    labels = [each.label or "none" for each in predictions.predicted if isinstance(each, Prediction)]
    listed = [f"{times:,} × {label}" for label, times in Counter(labels).most_common()]
    print(f"{total}: {figures.list_names(listed)}" if listed else total)
    if predictions.signature:
        print(f"signature: {predictions.signature}")
    if cut := sum(each.cut_tokens > 0 for each in predictions.predicted):
        print(f"{figures.count_of(cut, 'row')} longer than the model's context: the end was not read")
    for name in ("pearson", "spearman", "squared_error") if predictions.regression is not None else ():
        print(f"{name.replace('_', ' ')} {figures.number((predictions.regression or {})[name])}")
    part = predictions.classification
    if part is None:
        return
    interval = bootstrap_interval(part["row_correct"])
    ends = figures.interval(interval.low, interval.high)
    print(f"accuracy {figures.number(part['accuracy'])} (95 % interval {ends})")
    for name in ("macro_f1", "micro_f1", "roc_auc", "calibration_error"):
        print(f"{name.replace('_', ' ')} {figures.number(part[name])}")
    shown = classification.card_part({"classification": {**part, "calibration": []}})
    to = Console(highlight=False, width=None if sys.stdout.isatty() else terminal.PLAIN_WIDTH)
    for line in classification_tables.render(shown):
        to.print(line)
