"""The evaluation of a run: held-out loss, answers, forgetting and samples, on the same rows before and after training.

The task defines prompts, answers and examples. Writes nothing and does not train.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.base import process_memory
from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.data.examples import Examples
from lmworks.data.prompts import Prompt
from lmworks.evaluate import metrics, progress, scoring
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.evaluate.text_windows import bits_per_byte
from lmworks.language_model.choose_labels import count_choices
from lmworks.language_model.model import LanguageModel
from lmworks.model.sizes import key_value_bytes
from lmworks.model.transformer import Transformer
from lmworks.tasks.generation import answer_groups, answer_text
from lmworks.tasks.task import Task
from lmworks.text import datasets
from lmworks.text.plain_text import read_text
from lmworks.text.rows import DataSettings, Table

Figures = dict[str, Any]
"""Results of an evaluation by name, as an ``evaluation`` event has them."""

EVALUATION_SEED = 20_000  # of a task's random part in an evaluation: the same each time, and no seed of training
MOST_ROW_FIGURES = 200  # most figures by row that are kept; those of more examples are summed over adjacent ones
BYTES_PER_TOKEN = 4  # of the general text, roughly; used only for the plan
PIECE_BYTES = 2000  # of the general text: long enough to have context, short enough for many pieces


@dataclass(frozen=True)
class AnswerWorkload:
    """The workload of answering prompts.

    Attributes:
        prompt_tokens: tokens of the prompts.
        rows: largest number of answers generated at a time.
        steps: decoding steps, if all answers have the maximum length.
        cache_bytes: largest KV cache.
    """

    prompt_tokens: int
    rows: int = 0
    steps: int = 0
    cache_bytes: int = 0


@dataclass
class Evaluation:
    """What is evaluated, the same before and after training.

    Attributes:
        model: evaluated; training changes it in place.
        task: what the model learns.
        held_out: examples never trained on, with their random part sampled once.
        prompts: of held-out rows, with references; empty if the task has none.
        general: texts of another kind, never trained on.
        general_name: their name, for the report.
        settings: how much is evaluated.
        context: tokens of the longest text that the model reads once it is trained.
        notes: what is not evaluated, and why.
    """

    model: LanguageModel
    task: Task
    held_out: list[Example]
    prompts: list[Prompt]
    general: list[str]
    general_name: str
    settings: EvaluateSettings
    context: int
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        task: Task,
        held_out: Examples,
        rows: Table,
        data: DataSettings,
        settings: EvaluateSettings,
        context: int,
    ) -> Evaluation:
        """The evaluation according to the settings.

        Args:
            model: the model.
            task: what it learns.
            held_out: examples never trained on.
            rows: the rows of these examples.
            data: settings of the rows.
            settings: how much is evaluated.
            context: tokens of the longest text that the model reads once it is trained.
        """
        name, general = general_pieces(settings.general, settings.general_bytes or 0)
        prompts = task.prompts(rows, data) if settings.task_rows else []
        usable = [prompt for prompt in prompts if prompt.longest <= context]
        notes = []
        if len(usable) < len(prompts):
            place = next(prompt.place for prompt in prompts if prompt.longest > context)
            notes.append(
                f"{len(prompts) - len(usable)} held-out prompts leave no room for an answer in the context of "
                f"{context} tokens and are not asked; the first is {place}"
            )
        if not task.needs_language_head:
            general = []
        elif general and model.config.architecture != "decoder" and not task.general_examples(general, context):
            general = []
            notes.append(
                f"another text is not measured: task {task.name} has no examples of plain texts for this model"
            )
        examples = list(sample_once(task, held_out.items))
        return cls(model, task, examples, usable[: settings.task_rows], general, name, settings, context, notes)

    @property
    def places(self) -> set[str]:
        """The places of all rows that are evaluated or asked."""
        return {example.place for example in self.held_out} | {prompt.place for prompt in self.prompts}

    def tokens(self) -> int:
        """Tokens that pass through the network in one evaluation, without those of prompts and answers."""
        general = sum(len(text.encode()) for text in self.general) // BYTES_PER_TOKEN
        return sum(example.size for example in self.held_out) + general

    def answer_workload(self) -> AnswerWorkload:
        """The workload of answering the prompts once."""
        lengths = [len(prompt.ids) for prompt in self.prompts]
        if self.prompts and self.prompts[0].choices:
            scored = sum(len(prompt.ids) + sum(map(len, prompt.choices)) for prompt in self.prompts)
            return AnswerWorkload(prompt_tokens=scored)
        config, longest = self.model.config, self.settings.longest
        groups = answer_groups(config, lengths, longest)
        tokens = max((len(group) * (lengths[group[0]] + longest) for group in groups), default=0)
        rows = max(map(len, groups), default=0)
        return AnswerWorkload(sum(lengths), rows, len(groups) * longest, key_value_bytes(config, tokens))

    def run(self) -> tuple[Figures, list[dict[str, Any]]]:
        """Evaluate the model.

        Returns:
            All figures; and samples, each with ``prompt``, ``reference`` and ``answer``, and ``cut``, the number of its
            tokens, if the answer was cut.
        """
        figures: Figures = {}
        if self.held_out:
            progress.begin("held-out examples", len(self.held_out))
            figures["held_out"] = self.held_out_figures(self.model.network)
        process_memory.trim_memory(0)  # each part needs blocks of other sizes
        if self.general and (general := self._general_figures()):
            figures["general"] = general
        process_memory.trim_memory(0)
        if self.held_out:
            figures |= self.task.figures_of(self.model, self.held_out)
        if not self.prompts:
            return figures, self.samples()
        choices = count_choices(self.prompts) if self.prompts[0].choices else 0
        progress.begin("likelihoods of labels" if choices else "answers", choices or len(self.prompts))
        answers = self.task.answer(self.model, self.prompts, self.settings.longest)
        texts = [answer.text for answer in answers]
        figures["task"] = self._answer_figures(texts) | {"cut": sum(answer.cut > 0 for answer in answers)}
        if self.task.metric == "chrf" and metrics.end_in_numbers([prompt.reference for prompt in self.prompts]):
            figures["numbers"] = self._number_figures(texts)
        pairs = zip(self.prompts[: self.settings.samples], answers, strict=False)
        return figures, [
            {"prompt": prompt.text, "reference": prompt.reference, "answer": answer.text}
            | ({"cut": answer.cut} if answer.cut else {})
            for prompt, answer in pairs
        ]

    def held_out_figures(self, network: Transformer, step: int = 0) -> Figures:
        """Figures over all held-out examples, and by example (or by group of adjacent ones)."""
        losses = scoring.row_losses(network, self.held_out)
        tokens = losses.language if losses.language.targets.any() or not losses.heads else losses.of_heads
        sizes = [example.bytes for example in self.held_out]
        by_row = {"nats": tokens.nats, "tokens": tokens.targets, "bytes": np.array(sizes), "correct": tokens.correct}
        rows = {f"row_{name}": sum_adjacent(values).tolist() for name, values in by_row.items()}
        return {"rows": len(rows["row_nats"]), **scoring.summary(losses, sizes), **rows}

    def samples(self) -> list[dict[str, Any]]:
        """Texts generated from the settings' prompts, or else from held-out examples."""
        network = self.model.network
        training = network.training
        network.eval()
        try:
            if self.settings.prompts:
                return [
                    {"prompt": text, "answer": answer_text(self.model, text, self.settings)}
                    for text in self.settings.prompts
                ]
            return self.task.samples(self.model, spread(self.held_out, self.settings.samples), self.settings)
        finally:
            network.train(training)

    def _general_figures(self) -> Figures:
        """Bits per byte of the general text for a decoder; for other models the loss of the task's examples of it."""
        network = self.model.network
        if self.model.config.architecture == "decoder":
            progress.begin("texts for forgetting", len(self.general))
            scores = scoring.score_texts(network, self.model.tokenizer, self.general)
            nats, size = sum(score.nats for score in scores), sum(score.bytes for score in scores)
            return {
                "name": self.general_name,
                "bits_per_byte": bits_per_byte(nats, size),
                "row_nats": [score.nats for score in scores],
                "row_bytes": [score.bytes for score in scores],
            }
        examples = self.task.general_examples(self.general, self.context)
        progress.begin("texts for forgetting", len(examples))
        losses = scoring.row_losses(network, list(sample_once(self.task, examples))).language
        if not losses.targets.sum():
            return {}
        return {
            "name": self.general_name,
            "loss": float(losses.nats.sum() / losses.targets.sum()),
            "row_nats": losses.nats.tolist(),
            "row_tokens": losses.targets.tolist(),
        }

    def _answer_figures(self, answers: list[str]) -> Figures:
        references = [prompt.reference for prompt in self.prompts]
        metric = metrics.metric(self.task.metric)
        values = [metric.row(answer, reference) for answer, reference in zip(answers, references, strict=True)]
        interval = metrics.bootstrap_interval(values)
        labels = {"answers": answers, "references": references} if self.task.metric == "accuracy" else {}
        return {
            "metric": metric.title,
            "signature": metric.signature,
            "value": interval.value,
            "interval": [interval.low, interval.high],
            "n": len(values),
            "values": values,
            **labels,
        }

    def _number_figures(self, answers: list[str]) -> Figures:
        """The share of answers that end with the same number as their reference."""
        metric = metrics.metric("number_match")
        right = [metric.row(answer, prompt.reference) for answer, prompt in zip(answers, self.prompts, strict=True)]
        share = sum(right) / len(right)
        return {"name": metric.signature, "share": share, "row_right": right, "row_weights": [1.0] * len(right)}


def sample_once(task: Task, examples: Sequence[Example]) -> list[Example]:
    """The examples with their random part sampled once, always with the same seed."""
    if not task.is_random:
        return list(examples)
    return [
        task.sample_for_evaluation(example, np.random.default_rng((EVALUATION_SEED, row)))
        for row, example in enumerate(examples)
    ]


def spread(examples: Sequence[Example], count: int) -> list[Example]:
    """``count`` examples at equal intervals."""
    count = min(count, len(examples))
    return [examples[number * len(examples) // count] for number in range(count)]


def sum_adjacent(values: np.ndarray) -> np.ndarray:
    """(n,) -> (min(n, MOST_ROW_FIGURES),): sums over groups of adjacent values."""
    groups = min(len(values), MOST_ROW_FIGURES)
    return np.add.reduceat(values, np.arange(groups) * len(values) // groups)


def general_pieces(source: str | Path | None, size: int) -> tuple[str, list[str]]:
    """Name and pieces of the text on which forgetting is measured.

    Args:
        source: a file; None: Python's documentation topics that nothing is trained on.
        size: bytes of it; 0: none.

    Raises:
        InputError: the file cannot be read or is empty, or this Python has no documentation topics.
    """
    if source is None:
        return ("Python's documentation topics", _pieces(datasets.general_text(size), size)) if size else ("", [])
    path = Path(source)
    text = read_text(path)
    if not text.strip():
        raise InputError("is empty", str(path), "give a text, or leave evaluate.general out")
    return (path.name, _pieces(text.split("\n\n"), size)) if size else ("", [])


_AFTER_LINE_END = re.compile(r"(?<=\n)")


def _pieces(texts: list[str], size: int) -> list[str]:
    """The first ``size`` bytes as pieces of about :data:`PIECE_BYTES`, cut between lines where possible.

    They are the rows of a confidence interval, so several are needed.
    """
    pieces: list[str] = []
    for text in texts:
        for line in filter(None, _AFTER_LINE_END.split(text)):
            part = line.encode()[:size].decode(errors="ignore")
            size -= len(line.encode())
            if not pieces or len(pieces[-1].encode()) + len(part.encode()) > PIECE_BYTES:
                pieces.append("")
            pieces[-1] += part
            if size <= 0:
                return [piece for piece in pieces if piece.strip()]
        pieces.append("")
    return [piece for piece in pieces if piece.strip()]
