"""What a model is measured by, before and after: held-out loss, the task's own metric, forgetting, sample answers.

Knows no run folder and no training; the same examination is held each time, on the same rows, in float32. One that is
adapted answers questions; one that is trained from scratch (Trial) does what its objective asks of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.data.objectives import Examples, Prompt, prompts
from lmworks.data.packing import pack
from lmworks.evaluate import metrics, scoring
from lmworks.generate.fill import BLANKS
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.text import complete
from lmworks.language_model.model import LanguageModel
from lmworks.model.sizes import key_value_bytes
from lmworks.model.transformer import Transformer
from lmworks.run.recipe import EvaluateSettings, Recipe
from lmworks.text import datasets
from lmworks.text.rows import Table

if TYPE_CHECKING:
    from lmworks.run.pretrain_recipe import PretrainEvaluate

Figures = dict[str, Any]
MEASURED_ROWS = 200  # most rows whose figures are kept: neighbouring chunks of a long text count as one
CACHE_BYTES = 1 << 28  # keys and values of the texts that are written at a time
PIECE_BYTES = 2000  # of the general text: long enough to have context, short enough for many pieces


@dataclass
class Examination:
    """The questions, and the one who answers.

    Attributes:
        model: changed by training between two measurements.
        held_out: examples never trained on.
        questions: prompts of held-out rows with their references; none for plain texts.
        choices: the labels to choose among; empty unless the rows have labels.
        general: texts of another kind, never tuned on.
        general_name: what they are.
        settings: how much is measured.
    """

    model: LanguageModel
    held_out: list[Example]
    questions: list[Prompt]
    choices: list[str]
    general: list[str]
    general_name: str
    settings: EvaluateSettings

    @classmethod
    def of(cls, model: LanguageModel, held_out: Examples, rows: Table, recipe: Recipe) -> Examination:
        """The examination that a recipe asks for, on its held-out rows."""
        asked = prompts(rows, model.tokenizer, recipe.data)[: recipe.evaluate.task_rows]
        name, general = _general(recipe.evaluate)
        return cls(model, held_out.items, asked, held_out.choices, general, name, recipe.evaluate)

    def measure(self) -> tuple[Figures, list[dict[str, str]]]:
        """All figures, and sample answers (prompt, reference, answer)."""
        figures: Figures = {}
        samples: list[dict[str, str]] = []
        if self.held_out:
            figures["held_out"] = self.held_out_figures(self.model.network)
        if self.general:
            figures["general"] = self._general_figures()
        if self.questions:
            answers = self._chosen() if self.choices else self._written()
            figures["task"] = self._task_figures(answers)
            pairs = zip(self.questions[: self.settings.samples], answers, strict=False)
            samples = [{"prompt": q.text, "reference": q.reference, "answer": answer} for q, answer in pairs]
        return figures, samples

    def held_out_figures(self, network: Transformer, step: int = 0) -> Figures:
        """Loss in nats per token and bits per byte over the held-out rows, and each row's part in them."""
        losses = scoring.row_losses(network, self.held_out)
        return {"rows": len(self.held_out), **scoring.summary(losses, [one.bytes for one in self.held_out])}

    def _general_figures(self) -> Figures:
        scores = scoring.score_texts(self.model.network, self.model.tokenizer, self.general)
        nats, size = sum(one.nats for one in scores), sum(one.bytes for one in scores)
        return {
            "name": self.general_name,
            "bits_per_byte": scoring.bits_per_byte(nats, size),
            "row_nats": [one.nats for one in scores],
            "row_bytes": [one.bytes for one in scores],
        }

    def _written(self) -> list[str]:
        """Greedy answers, as many questions at once as a small cache of keys and values holds."""
        settings = SamplingSettings(max_tokens=self.settings.max_tokens)
        a_token = key_value_bytes(self.model.config, 1)
        answers = [""] * len(self.questions)
        for group in _together([len(question.ids) for question in self.questions], settings.max_tokens, a_token):
            ids = [self.questions[index].ids for index in group]
            replies = complete(self.model.stepper(), self.model.tokenizer, ids, settings)
            for index, reply in zip(group, replies, strict=True):
                answers[index] = reply.text.strip()
        return answers

    def _chosen(self) -> list[str]:
        """The likeliest label of each question."""
        ids = [question.ids for question in self.questions]
        choices = [question.choices for question in self.questions]
        found = scoring.choice_likelihoods(self.model.network, ids, choices)
        return [self.choices[int(likelihoods.argmax())] for likelihoods in found]

    def _task_figures(self, answers: list[str]) -> Figures:
        references = [question.reference for question in self.questions]
        judge = metrics.metric("accuracy" if self.choices else "chrf")
        values = [judge.row(answer, reference) for answer, reference in zip(answers, references, strict=True)]
        interval = metrics.bootstrap_interval(values)
        return {
            "metric": judge.title,
            "signature": judge.signature,
            "value": interval.value,
            "interval": [interval.low, interval.high],
            "n": len(values),
            "values": values,
        }


@dataclass
class Trial:
    """The examination of a model from scratch: it predicts what was never trained on, and shows what it writes.

    Attributes:
        model: changed by training between two measurements.
        held_out: examples never trained on, with what is hidden in them drawn once: each time the same is measured.
        settings: how much is shown.
    """

    model: LanguageModel
    held_out: list[Example]
    settings: PretrainEvaluate

    def measure(self) -> tuple[Figures, list[dict[str, str]]]:
        """Loss, perplexity, accuracy, bits per byte; and samples."""
        figures = {"held_out": self.held_out_figures(self.model.network)} if self.held_out else {}
        return figures, self.samples()

    def held_out_figures(self, network: Transformer, step: int = 0) -> Figures:
        """Figures over the held-out rows, and what each row (or each of some hundred parts of a text) has in them."""
        losses = scoring.row_losses(network, self.held_out)
        tokens = losses.language
        sizes = [one.bytes for one in self.held_out]
        parts = {"nats": tokens.nats, "tokens": tokens.targets, "bytes": np.array(sizes), "correct": tokens.correct}
        rows = {f"row_{name}": _summed(values).tolist() for name, values in parts.items()}
        return {"rows": len(rows["row_nats"]), **scoring.summary(losses, sizes), **rows}

    def samples(self) -> list[dict[str, str]]:
        """What the model makes of some texts (prompt, reference, answer): those of the settings, else held-out ones."""
        network = self.model.network
        training = network.training
        network.eval()
        try:
            if self.settings.prompts:
                return [{"prompt": text, "answer": self._answer(text)} for text in self.settings.prompts]
            chosen = spread(self.held_out, self.settings.samples)
            show = {"decoder": self._continued, "encoder": self._filled, "encoder-decoder": self._rewritten}
            return [show[self.model.config.architecture](example) for example in chosen]
        finally:
            network.train(training)

    def _answer(self, text: str) -> str:
        """A person's own text, filled where it has blanks, else continued or answered."""
        if self.model.config.architecture == "encoder" or _BLANK.search(text):
            return self.model.fill(text).text
        return self.model.generate(text, **self._sampling().model_dump())

    def _sampling(self) -> SamplingSettings:
        """A decoder's continuation is drawn; the answer of an encoder-decoder is the likeliest."""
        told, drawn = self.settings, self.model.config.architecture == "decoder"
        temperature, top_k = (told.temperature, told.top_k) if drawn else (0.0, 0)
        return SamplingSettings(max_tokens=told.max_tokens, temperature=temperature, top_k=top_k)

    def _continued(self, example: Example) -> dict[str, str]:
        """The first half of a text, and how it goes on."""
        ids, tokenizer = example.ids.tolist(), self.model.tokenizer
        half = max(1, len(ids) // 2)
        return {
            "prompt": tokenizer.decode(ids[:half]),
            "reference": tokenizer.decode(ids[half : half + self.settings.max_tokens]),
            "answer": self._written(ids[:half]),
        }

    def _rewritten(self, example: Example) -> dict[str, str]:
        """What the encoder reads, and what the decoder writes."""
        tokenizer, source = self.model.tokenizer, [] if example.source is None else example.source.tolist()
        plain = not any(token in tokenizer.decode(source, skip_special=False) for token in ("<extra_id_", "<mask>"))
        return {
            "prompt": tokenizer.decode(source, skip_special=plain),
            "reference": tokenizer.decode(example.ids[1:].tolist(), skip_special=plain),
            "answer": self._written(source, skip_special=plain),
        }

    def _written(self, ids: list[int], skip_special: bool = True) -> str:
        model = self.model
        (reply,) = complete(model.stepper(), model.tokenizer, [ids], self._sampling(), model.rules)
        return reply.text if skip_special else model.tokenizer.decode(reply.ids, skip_special=False)

    @torch.no_grad()
    def _filled(self, example: Example) -> dict[str, str]:
        """A text with hidden words, and the likeliest word in the place of each."""
        network, decode = self.model.network, self.model.tokenizer.decode
        (batch,) = pack([example], len(example))
        places = batch.weights.flatten().nonzero().squeeze(1)
        logits = network(
            batch.ids, positions=batch.positions, segments=batch.segments, types=batch.types, only=places
        ).logits
        filled, original = batch.ids.flatten().clone(), batch.ids.flatten().clone()
        filled[places], original[places] = logits.argmax(-1), batch.targets.flatten()[places]
        return {
            "prompt": decode(example.ids.tolist(), skip_special=False),
            "reference": decode(original.tolist()),
            "answer": decode(filled.tolist()),
        }


_BLANK = re.compile("|".join((*BLANKS, "<extra_id_")))


def _together(lengths: Sequence[int], new: int, a_token: int) -> list[list[int]]:
    """Indices of texts, neighbours in length together, as many as CACHE_BYTES hold when each has grown by ``new``."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not groups or (len(groups[-1]) + 1) * (lengths[groups[-1][0]] + new) * a_token > CACHE_BYTES:
            groups.append([])
        groups[-1].append(index)
    return groups


def spread(examples: Sequence[Example], count: int) -> list[Example]:
    """So many examples, spread evenly."""
    count = min(count, len(examples))
    return [examples[number * len(examples) // count] for number in range(count)]


def _summed(values: np.ndarray) -> np.ndarray:
    """(n,) -> (MEASURED_ROWS,) sums over neighbours, where there are more."""
    groups = min(len(values), MEASURED_ROWS)
    return np.add.reduceat(values, np.arange(groups) * len(values) // groups)


def _general(settings: EvaluateSettings) -> tuple[str, list[str]]:
    """The text that shows what was forgotten, in pieces of some thousand bytes."""
    if settings.general_bytes == 0:
        return "", []
    if settings.general is None:
        return "Python's documentation topics", _pieces(
            datasets.general_text(settings.general_bytes), settings.general_bytes
        )
    path = Path(settings.general)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as UTF-8 text: {error}", str(path), "give a plain text file") from error
    if not text.strip():
        raise InputError("is empty", str(path), "give a text, or leave evaluate.general out")
    return path.name, _pieces(text.split("\n\n"), settings.general_bytes)


def _pieces(texts: list[str], size: int) -> list[str]:
    """The first ``size`` bytes as pieces of some two thousand, cut between lines where they can be.

    Several pieces, since how sure a change is can only be told from several.
    """
    pieces: list[str] = []
    for text in texts:
        for line in text.splitlines(keepends=True):
            part = line.encode()[:size].decode(errors="ignore")
            size -= len(line.encode())
            if not pieces or len(pieces[-1].encode()) + len(part.encode()) > PIECE_BYTES:
                pieces.append("")
            pieces[-1] += part
            if size <= 0:
                return [piece for piece in pieces if piece.strip()]
        pieces.append("")
    return [piece for piece in pieces if piece.strip()]
