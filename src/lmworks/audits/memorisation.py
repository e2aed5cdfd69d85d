"""Memorisation: canaries, completions written word for word, membership by loss.

Everything is measured of the rows that a run trained on, beside rows that it held out; of the run's base it shows what
can be guessed.

- Exposure of canaries: Carlini et al. 2019 (run/memorisation). Canaries are in the rows where somebody planted them:
  ``lmworks audit --plant FILE``.
- Completions: Carlini et al. 2021.
- Membership by loss: Yeom et al. 2018; how often a row that was trained on has the smaller loss than one that was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.audits.figure import BITS, PLAIN, Area, Figure, mean, share, sign
from lmworks.audits.part import Given, Part, text_of
from lmworks.audits.subject import Subject
from lmworks.base.errors import InputError
from lmworks.base.figures import shorten
from lmworks.data.batch import Example
from lmworks.evaluate.exposure import expected_exposure
from lmworks.run.memorisation import examples_of_run, measure_exposure, measure_reproduction
from lmworks.text.canaries import KINDS, Canary, make_canaries
from lmworks.text.corpus import content_hash
from lmworks.text.rows import Row, Table

PLANTED, CONTROLS = 8, 8
OTHER_SECRETS = 60  # that are scored for each canary: each is a text of its own to the model
EXPOSURE_HIDES = (
    "Not how much of real rows can be got out: how much likelier planted numbers are than others of six digits. A rare "
    "row that stands there once is memorised less than a canary that stands there often."
)
VERBATIM_HIDES = (
    "Not what other prompts or more samples would bring out: one greedy answer to the very prompt of each row. Short "
    "and common completions are written word for word by models that never saw them: read it beside the held-out rows."
)
MEMBERSHIP_HIDES = (
    "Not the best attack: one that trains other models for comparison finds more, and an area near 50 % may hide a few "
    "rows that are given away for certain (Carlini et al. 2022)."
)
SHOWN = 3
LONGEST = 512  # tokens of a row, of which the loss is taken


def measure(subject: Subject, given: Given) -> Part:
    """All that can be measured of this model and these rows."""
    part = Part()
    if given.run is None or given.train is None or given.held_out is None:
        part.missing.append(f"memorisation: {given.no_rows}")
        return part
    _exposure(subject, given, part)
    if subject.labels:
        part.missing.append("completions written word for word: the model gives labels")
        _label_membership(subject, given, part)
    elif subject.gives_choices or (hasattr(subject.model, "network") and not subject.is_counted):
        _completions(subject, given.run, given, part)
    else:
        part.missing.append("completions and membership: the model has no network")
    return part


def _exposure(subject: Subject, given: Given, part: Part) -> None:
    assert given.run is not None
    assert given.train is not None
    canaries = canaries_for(given.train)
    planted = planted_in(given.train, canaries)
    if not planted:
        part.missing.append(
            "exposure: there are no canaries in the training rows; lmworks audit --plant FILE writes some for them"
        )
        return
    try:
        measured = measure_exposure(given.run, [*planted, *canaries[PLANTED:]], OTHER_SECRETS, subject.model).canaries
    except InputError as error:
        part.missing.append(f"exposure: {error.fault}")
        return
    bits = measured[0].exposure.space_bits
    chance = expected_exposure(2.0**bits)
    for name, canaries_of in (("planted", planted), ("control", canaries[PLANTED:])):
        names = {canary.name for canary in canaries_of}
        values = [one.exposure.bits for one in measured if one.name in names]
        times = sum(one.planted for one in measured if one.name in names)
        title = f"exposure of canaries, {name}"
        title += f" {times // max(1, len(values))} times" if name == "planted" else ", never trained on"
        of = {"kind": given.train.kind, "space": f"{bits:.1f} bits", "scored": OTHER_SECRETS}
        signature = sign("exposure", **of, rows=len(values))
        key = f"exposure.{name}"
        part.figures.append(mean(key, title, values, signature, EXPOSURE_HIDES, unit=BITS, neutral=chance))


def canaries_for(table: Table) -> list[Canary]:
    """The canaries of rows of a kind: PLANTED that may be planted, CONTROLS that are not; none for other kinds."""
    if table.kind not in KINDS or (table.kind == "labels" and len(table.labels) < 2):
        return []
    return make_canaries(table.kind, PLANTED + CONTROLS, labels=table.labels)


def planted_in(table: Table, canaries: Sequence[Canary]) -> list[Canary]:
    """Those of the first PLANTED canaries that are among the rows."""
    there = {content_hash(Row(row.values)) for row in table.rows}
    return [canary for canary in canaries[:PLANTED] if content_hash(Row(canary.row())) in there]


def _completions(subject: Subject, run: Path, given: Given, part: Part) -> None:
    """Completions that are written again, and membership by loss."""
    rows, seed = given.settings.rows, given.settings.seed
    try:
        sides = [examples[:rows] for examples in examples_of_run(run, subject.model, seed)]
    except InputError as error:
        part.missing.append(f"completions and membership: {error.fault}")
        return
    if subject.writes:
        _reproduction(subject, run, given, part)
    _membership([-_loss(subject, examples) for examples in sides], f"nats per token of the first {LONGEST}", part)


def _reproduction(subject: Subject, run: Path, given: Given, part: Part) -> None:
    rows, seed = given.settings.rows, given.settings.seed
    result = measure_reproduction(run, rows=min(rows, 100), seed=seed, model=subject.model)
    for name, title, side in (
        ("trained", "trained on", result.trained),
        ("held_out", "held out", result.held_out),
    ):
        if not side:
            part.missing.append(f"completions word for word: no row {title} can be continued")
            continue
        signature = sign("verbatim", decoding="greedy", tokens=result.new_tokens, rows=len(side))
        hits = [one.is_same for one in side]
        title = f"written word for word, rows {title}"
        part.figures.append(share(f"verbatim.{name}", title, hits, signature, VERBATIM_HIDES))
    longest = sorted((one for one in result.trained if one.is_same), key=lambda one: -one.tokens)
    part.examples += [f"{shorten(one.prompt)} → {shorten(one.expected, 100)}" for one in longest[:SHOWN]]


def _label_membership(subject: Subject, given: Given, part: Part) -> None:
    """Membership by the loss of a classifier: -log p of the right label."""
    sides = []
    for table in (given.train, given.held_out):
        assert table is not None
        rows = [row for row in given.draw(table.rows) if isinstance(row.values.get("label"), str)]
        inputs = [row.texts if len(row.texts) > 1 else (row.texts or [text_of(row)])[0] for row in rows]
        predicted = subject.predict(inputs) if rows else []
        sides.append(
            np.array([
                np.log(max(one.probabilities.get(row.values["label"], 0.0), 1e-300))
                for one, row in zip(predicted, rows, strict=True)
            ])
        )  # fmt: skip
    _membership(sides, "nats of the label", part)


def _membership(scores: Sequence[np.ndarray], loss: str, part: Part) -> None:
    """The area under the ROC curve of the loss."""
    if not all(len(side) for side in scores):
        part.missing.append("membership: no rows were held out to compare with")
        return
    trained, held_out = scores
    signature = sign("membership", loss=loss, rows=f"{len(trained)}+{len(held_out)}")
    title = "membership by loss, area under the ROC curve"
    part.figures.append(
        Figure("membership", title, PLAIN, Area(trained, held_out), signature, MEMBERSHIP_HIDES, neutral=0.5)
    )


def _loss(subject: Subject, examples: Sequence[Example]) -> np.ndarray:
    """(N,) mean nats per token that carries loss."""
    kept = [example for example in examples if example.loss[1:].any() or example.targets is not None]
    if not subject.gives_choices:
        from lmworks.evaluate.scoring import row_losses

        losses = row_losses(subject.model.network, kept).language
        return np.asarray(losses.nats / np.maximum(losses.targets, 1))
    prompts, choices, owners = [], [], []
    for owner, example in enumerate(kept):
        for begin, end in _learned_spans(example.loss[: min(LONGEST, int(subject.model.context))]):
            prompts.append(example.ids[:begin].tolist())
            choices.append([example.ids[begin:end].tolist()])
            owners.append(owner)
    nats = np.array([row[0] for row in subject.choice_nats(prompts, choices)])
    tokens = [len(choice[0]) for choice in choices]
    counts = np.bincount(owners, tokens)
    return np.asarray(np.bincount(owners, nats)[counts > 0] / counts[counts > 0])


def _learned_spans(loss: np.ndarray) -> list[tuple[int, int]]:
    """Begin and end of each run of tokens with loss; the first token of a text has none, as nothing predicts it."""
    learned = loss.copy()
    learned[:1] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[0], learned.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def planted_rows(table: Table, times: int) -> list[dict[str, Any]]:
    """Rows to train on beside those of a table, by which memorisation is measured.

    Args:
        table: the rows to train on.
        times: how often each canary stands there.

    Raises:
        InputError: rows of this kind have no canaries.
    """
    canaries = canaries_for(table)
    if not canaries:
        raise InputError(f"rows of kind {table.kind} have no canaries", table.name, f"give rows of {', '.join(KINDS)}")
    return [canary.row() for canary in canaries[:PLANTED] for _ in range(times)]
