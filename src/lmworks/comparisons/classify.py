"""The rungs of classifiers: the same rows to train on, and the same held-out rows, which every rung predicts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lmworks.run.api as runs
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.comparisons.averaged_vectors import AveragedVectors
from lmworks.comparisons.ladder_settings import LadderSettings, RungState
from lmworks.comparisons.language import size_of
from lmworks.comparisons.rungs import Rung
from lmworks.evaluate.choices import choice_likelihoods
from lmworks.evaluate.metrics import bootstrap_interval, macro_f1
from lmworks.language_model.choose_labels import choose_labels
from lmworks.language_model.opening import open_saved_model, read_config
from lmworks.run import classical, recipe
from lmworks.run.load import load
from lmworks.run.result import Run, Say
from lmworks.tasks.labels import Labels
from lmworks.tasks.settings import TaskSettings
from lmworks.text import python_rows
from lmworks.text.rows import DataSettings

ROWS = "rows.jsonl"
AT_ONCE = 8  # prompts that are asked before the time is checked
QUESTION = "Which label fits this text? Answer with one of: "
TRAINED: dict[str, Any] = {"evaluate": {"samples": 0, "task_rows": 0, "general_bytes": 0}}


class ClassifierLadderTask:
    """What all rungs of classifiers share.

    Attributes:
        folder: of the ladder, which holds the rows.
        settings: of the ladder.
        notes: of the data.
        prompt: empty: classifiers write nothing.
    """

    prompt = ""

    def __init__(self, folder: Path, settings: LadderSettings) -> None:
        self.folder, self.settings, self.notes = folder, settings, list[str]()
        path = folder / ROWS
        self.data = settings.data_of_runs(path)
        if not path.is_file():
            parts = classical.labelled_rows(settings.source, settings.data)
            self.notes += parts[0].notes
            kept = [{name: row.values[name] for name in ("text", "label")} for part in parts for row in part.rows]
            python_rows.save(kept, path)
        self.train, self.held_out = classical.labelled_rows(str(path), settings.data)
        if not len(self.held_out):
            raise InputError("no row is held out: nothing can be compared", settings.source, "--data.held_out 0.2")

    @property
    def texts(self) -> list[str]:
        """The held-out texts."""
        return [row.values["text"] for row in self.held_out.rows]

    @property
    def labels(self) -> list[str]:
        """Their labels."""
        return [row.values["label"] for row in self.held_out.rows]

    @property
    def compared(self) -> dict[str, Any]:
        """What is compared."""
        return {"measure": "accuracy", "rows": len(self.held_out), "unit": "rows"}

    def start(self, rung: Rung, out: Path, **groups: Any) -> Run:
        """Train a rung in a new folder."""
        begin = runs.pretrain if recipe.is_preset(rung.model) else runs.tune
        return begin(rung.model, self.data, out=out, **groups)

    @staticmethod
    def groups(rung: Rung) -> dict[str, Any]:
        """How much a run evaluates for its own report, beside the ladder's figures."""
        return {} if rung.kind == "counted" else TRAINED

    def measure(self, rung: Rung, step: RungState, folder: Path, say: Say, seconds: float) -> RungState:
        """The rung's step with its figures on the held-out rows."""
        if rung.kind == "prompted":
            return self._ask(rung, step, say, seconds)
        if rung.kind == "vectors":
            began = time.monotonic()
            averaged = AveragedVectors.fit(*self._training(), **self.settings.rung.get(rung.name, {}))
            step = replace(step, training_seconds=time.monotonic() - began, parameters=averaged.parameters)
            averaged.save(folder)
            return self._judged(step, averaged.predict(self.texts))
        predicted = load(folder).predict(self.texts)
        return self._judged(replace(step, parameters=size_of(folder)), [prediction.label for prediction in predicted])

    def _training(self) -> tuple[list[str], list[str]]:
        rows = self.train.rows
        return [row.values["text"] for row in rows], [row.values["label"] for row in rows]

    def _judged(self, step: RungState, predicted: Sequence[str]) -> RungState:
        """The step with the figures of predictions for the first held-out rows, as many as there are predictions."""
        right = self.labels[: len(predicted)]
        correct = [float(label == expected) for label, expected in zip(predicted, right, strict=True)]
        value, low, high = bootstrap_interval(correct)
        return replace(step, value=value, interval=[low, high], macro_f1=macro_f1(predicted, right), rows=correct)

    def _ask(self, rung: Rung, step: RungState, say: Say, seconds: float) -> RungState:
        """Ask a model for the label of the held-out rows, one after another until its time is over: each time the
        likeliest of all labels, without any training."""
        read_config(rung.model)  # fetched where it is not here
        began = time.monotonic()
        model = open_saved_model(rung.model)
        task = Labels(TaskSettings(name=Labels.name), model.tokenizer, model.config)
        question = QUESTION + ", ".join(self.train.labels)
        rows = [
            replace(row, values={**row.values, "text": f"{row.values['text']}\n\n{question}"})
            for row in self.held_out.rows
        ]
        prompts = task.prompts(replace(self.held_out, rows=rows), DataSettings())
        model = model.prepare()
        predicted: list[str] = []
        while len(predicted) < len(prompts):
            part = prompts[len(predicted) : len(predicted) + AT_ONCE]
            predicted += [reply.text for reply in choose_labels(partial(choice_likelihoods, model.network), part)]
            elapsed = time.monotonic() - began
            if elapsed * (1 + AT_ONCE / len(predicted)) > seconds:
                break
        size = sum(weight.numel() for weight in model.network.parameters())
        step = self._judged(replace(step, parameters=size), predicted)
        if len(predicted) < len(prompts):
            note = f"its time lasted for the first {len(predicted):,} of {count_of(len(prompts), 'held-out row')}"
            step = replace(step, notes=[*step.notes, note])
        return step
