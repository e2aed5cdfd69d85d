"""How lmworks predict answers the questions of a file: the first answers, exact match and F1, and a file of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from lmworks.base import figures
from lmworks.commands import show

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel
    from lmworks.run.predict_answers import Answers

WIDTH = 50  # characters of each text


def run(
    model: LanguageModel,
    source: str,
    data: str,
    given: dict[str, Any],
    count: int,
    out: str | None,
    head: str | None = None,
) -> int:
    """Answer the rows of a file.

    Args:
        model: with a head for spans.
        source: of the model.
        data: of the rows.
        given: data settings from the command line.
        count: of rows that are printed.
        out: the file to write; None: none.
    """
    from lmworks.run import predict_answers, predict_file

    settings = predict_answers.answers_settings(source, data, given, head)
    predict_file.check_out(out)
    answers = predict_answers.answer_rows(model, data, settings)
    for note in predict_file.notes_of(answers.table, source, data, head):
        print(f"note: {note}", file=sys.stderr)
    _print(answers, max(count, 0))
    if out:
        print(f"written: {predict_answers.write_answers(answers, data, settings, out)}")
    return 0


def _print(answers: Answers, count: int) -> None:
    """The first rows, and the figures."""
    from lmworks.evaluate.metrics import bootstrap_interval
    from lmworks.reports.classification_tables import excerpt

    cells = []
    for row, answer in list(zip(answers.table.rows, answers.predicted, strict=True))[:count]:
        gold = [" | ".join(dict.fromkeys(row.values["answers"]["text"])) or "(none)"] if answers.figures else []
        texts = [row.values["question"], *gold, answer.text or "(none)"]
        cells.append((*(excerpt(text, WIDTH) for text in texts), f"{answer.probability:.3f}"))
    if cells:
        answered = ("question", *(["answer"] if answers.figures else []), "prediction", "probability")
        show.table(answered, cells)
    without = sum(not answer.text for answer in answers.predicted)
    print(f"{figures.count_of(len(answers.predicted), 'question')}, {without:,} without an answer in its context")
    part = answers.figures
    if part is None:
        return
    for name, title in (("exact", "exact match"), ("f1", "F1")):
        ends = bootstrap_interval(part[f"row_{name}"])
        interval = figures.interval(ends.low, ends.high)
        print(f"{title} {figures.number(part[name])} percent (95 % interval {interval})")
    for kind, about in (("has_answer", "with an answer"), ("no_answer", "without")):
        if f"{kind}_f1" in part:
            exact, f1 = (figures.number(part[f"{kind}_{name}"]) for name in ("exact", "f1"))
            print(f"{figures.count_of(part[kind], 'question')} {about}: exact match {exact}, F1 {f1} percent")
