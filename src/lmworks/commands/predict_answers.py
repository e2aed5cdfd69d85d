"""What lmworks predict prints of the answers to the questions of a file: the first ones, exact match and F1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmworks.base import figures
from lmworks.commands import show

if TYPE_CHECKING:
    from lmworks.run.predict_answers import Answers

WIDTH = 50  # characters of each text


def show_answers(answers: Answers, count: int) -> None:
    """The first rows, and the figures."""
    from lmworks.evaluate.metrics import bootstrap_interval

    cells = []
    for row, answer in list(zip(answers.table.rows, answers.predicted, strict=True))[:count]:
        gold = [" | ".join(dict.fromkeys(row.values["answers"]["text"])) or "(none)"] if answers.figures else []
        texts = [row.values["question"], *gold, answer.text or "(none)"]
        cells.append((*(figures.shorten(text, WIDTH) for text in texts), f"{answer.probability:.3f}"))
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
