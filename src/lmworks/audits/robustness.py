"""Robustness: typing errors, case, paraphrases of the user's, and the order of labels in a prompt.

Of what gives labels, the share of rows whose label changes, and the accuracy; of what writes, how much less likely the
rows' own answers become.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from lmworks.audits.figure import NATS, mean, share, sign
from lmworks.audits.part import Given, Part, with_answer
from lmworks.audits.subject import NO_LABELS, NO_TEXTS, Subject
from lmworks.base.errors import InputError
from lmworks.base.figures import shorten
from lmworks.base.files import expand_home
from lmworks.evaluate.question_answering import f1
from lmworks.generate.sampling import SamplingSettings
from lmworks.language_model.text_methods import TextMethods
from lmworks.text import formats
from lmworks.text.messages import Message
from lmworks.text.perturbations import PERTURBATIONS, RATE, perturb
from lmworks.text.rows import BadRows, DataSettings, Row

CHANGE_HIDES = (
    "Not whether the label was right before, or is right after: only that it changed. A text may lose its meaning to "
    "an error, and a model that always gives one label is perfectly robust."
)
ACCURACY_HIDES = "Not other errors than these: what people write differs from random errors in single words."
LIKELIHOOD_HIDES = (
    "Not what the model then writes: only how much less likely the row's own answer becomes. Answers that hardly "
    "depend on the prompt change little."
)
PARAPHRASE_HIDES = "Not that the paraphrases mean the same: they are your file's. Right answers may differ in words."
ORDER_HIDES = "Not which order is right: the labels in the prompt stand the other way round, and nothing else changes."
SHOWN = 3


def measure(subject: Subject, given: Given) -> Part:
    """All that can be measured of this model."""
    part = Part()
    if subject.labels:
        _labels(subject, given, part)
        _label_order(subject, given, part)
    elif subject.writes:
        _answers(subject, given, part)
    else:
        part.missing.append(f"robustness: {NO_LABELS}, and {NO_TEXTS}")
        return part
    _paraphrases(subject, given, part)
    return part


def _signature(name: str, count: int) -> str:
    rate = RATE if name == "typos" else None
    return sign("robustness", change=name, rate=rate, rows=count)


def _labelled_rows(given: Given) -> list[Row]:
    rows = [] if given.table is None else [row for row in given.table.rows if row.texts]
    return given.draw(rows)


def _labels(subject: Subject, given: Given, part: Part) -> None:
    """Labels of rows as they are, and after each perturbation."""
    rows = _labelled_rows(given)
    if not rows:
        part.missing.append("typos and case: give rows with texts with --data FILE")
        return
    before = _predict(subject, rows, lambda text: text)
    right = [row.values.get("label") for row in rows]
    has_labels = all(label in subject.labels for label in right)
    if has_labels:
        hits = [one == label for one, label in zip(before, right, strict=True)]
        part.figures.append(share("accuracy", "accuracy", hits, _signature("none", len(rows)), ACCURACY_HIDES))
    for name in PERTURBATIONS:
        key, seed = name.replace(" ", "_"), given.settings.seed
        after = _predict(subject, rows, partial(perturb, name=name, seed=seed))
        changed = [one != other for one, other in zip(before, after, strict=True)]
        signature = _signature(name, len(rows))
        title = f"{name}, label changes"
        part.figures.append(share(f"{key}.changes", title, changed, signature, CHANGE_HIDES, neutral=0.0))
        if has_labels:
            hits = [one == label for one, label in zip(after, right, strict=True)]
            part.figures.append(share(f"{key}.accuracy", "  accuracy", hits, signature, ACCURACY_HIDES))
        shown = [
            f"{one} → {other}: {shorten(perturb(row.texts[0], name, seed), 80)}"
            for row, one, other in zip(rows, before, after, strict=True)
            if one != other
        ]
        part.examples += shown[:1]


def _predict(subject: Subject, rows: Sequence[Row], change: Callable[[str], str]) -> list[str]:
    """The labels of rows whose texts are changed."""
    texts: list[Any] = []
    for row in rows:
        changed = [change(text) for text in row.texts]
        texts.append(changed[0] if len(changed) == 1 else changed)
    return [prediction.label for prediction in subject.predict(texts)]


def _label_order(subject: Subject, given: Given, part: Part) -> None:
    """Labels where the prompt lists them the other way round."""
    model = subject.model
    form = model.input_format if isinstance(model, TextMethods) else None
    if form is None or form.kind != "label":
        part.missing.append("order of labels: the model has a head for them, and reads none in a prompt")
        return
    rows = _labelled_rows(given)
    if not rows:
        return
    before = _predict(subject, rows, lambda text: text)
    model.input_format = form.model_copy(update={"labels": tuple(reversed(form.labels))})
    try:
        after = _predict(subject, rows, lambda text: text)
    finally:
        model.input_format = form
    changed = [one != other for one, other in zip(before, after, strict=True)]
    title, signature = "labels in the other order, label changes", _signature("labels reversed", len(rows))
    part.figures.append(share("label_order.changes", title, changed, signature, ORDER_HIDES, neutral=0.0))


def _answers(subject: Subject, given: Given, part: Part) -> None:
    """How much less likely the rows' own answers become after a changed prompt."""
    rows = [] if given.table is None else given.table.rows
    asked = given.draw([pair for row in rows if (pair := with_answer(row)) is not None])
    if not asked:
        part.missing.append("typos and case: give rows with prompts and answers with --data FILE")
        return
    if not subject.gives_choices:
        part.missing.append("typos and case: the model gives no likelihood of an answer after a prompt")
        return
    before, tokens = _answer_nats(subject, asked, lambda text: text)
    for name in PERTURBATIONS:
        key, seed = name.replace(" ", "_"), given.settings.seed
        after, _ = _answer_nats(subject, asked, partial(perturb, name=name, seed=seed))
        title = f"prompt in {name}, nats per token of the answer more"
        title = title.replace("in typos", "with typos")
        figure = mean(
            f"{key}.nats", title, after - before, _signature(name, len(asked)), LIKELIHOOD_HIDES, weights=tokens,
            unit=NATS, neutral=0.0,
        )  # fmt: skip
        part.figures.append(figure)


def _answer_nats(
    subject: Subject, asked: Sequence[tuple[list[Message], str]], change: Callable[[str], str]
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) nats and (N,) tokens of answers after prompts whose last message is changed."""
    changed = [[*turns[:-1], {**turns[-1], "content": change(str(turns[-1]["content"]))}] for turns, _ in asked]
    prompts = [prompt.ids for prompt in subject.prompts(changed)]
    choices = [[subject.model.tokenizer.encode(answer)] for _, answer in asked]
    nats = [row[0] for row in subject.choice_nats(prompts, choices)]
    return np.array(nats), np.array([float(len(choice[0])) for choice in choices])


def _paraphrases(subject: Subject, given: Given, part: Part) -> None:
    """Labels of, or answers to, texts and their paraphrases."""
    source = given.settings.paraphrases
    if source is None:
        part.missing.append("paraphrases: give a file with the columns text and paraphrase: --paraphrases FILE")
        return
    pairs = given.draw(read_paraphrases(source))
    signature = sign("robustness", change=f"paraphrases of {expand_home(source).name}", rows=len(pairs))
    if subject.labels:
        sides = [[one.label for one in subject.predict([pair[side] for pair in pairs])] for side in (0, 1)]
        changed = [one != other for one, other in zip(*sides, strict=True)]
        title = "paraphrases, label changes"
        part.figures.append(share("paraphrases.changes", title, changed, signature, PARAPHRASE_HIDES, neutral=0.0))
        return
    settings = SamplingSettings(max_tokens=given.settings.max_tokens)
    written = [
        subject.answers([[{"role": "user", "content": pair[side]}] for pair in pairs], settings) for side in (0, 1)
    ]
    values = [f1(one, other) for one, other in zip(*written, strict=True)]
    title = "answers to paraphrases, F1 of their words"
    part.figures.append(mean("paraphrases.f1", title, values, signature, PARAPHRASE_HIDES, neutral=1.0))


def read_paraphrases(source: str) -> list[tuple[str, str]]:
    """Texts with their paraphrases.

    Raises:
        InputError: there is no such file, or a row lacks a column.
    """
    path = expand_home(source)
    if not path.is_file():
        raise InputError("there is no such file", source, "give a CSV or JSONL with the columns text and paraphrase")
    pairs = []
    for row in formats.records(path, DataSettings(), BadRows("stop"), []):
        texts = [str(row.values.get(name) or "").strip() for name in ("text", "paraphrase")]
        if not all(texts):
            missing = "text" if not texts[0] else "paraphrase"
            raise InputError(f"has no {missing!r}", row.place, "give each row the columns text and paraphrase")
        pairs.append((texts[0], texts[1]))
    return pairs
