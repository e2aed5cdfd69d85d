"""What a model forgot while it was tuned: the same questions to the model that it was tuned from, and to the result.

Two figures, each with its rows: one on general text, and the accuracy on multiple-choice questions that nothing was
trained on. Which text figure there is depends on what the base can do:

- a decoder: bits per byte; a masked encoder: bits per byte by pseudo-likelihood (evaluate/pseudo_likelihood);
- an encoder without a language head: the share of texts whose halves are each other's nearest (evaluate/text_halves).

Where tuning replaced the language head by the head of a task, the base's language head is put on the tuned backbone. It
was not trained with it, so the figure says how far the backbone's states still are what the head reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import NATS_PER_BIT
from lmworks.base.journal import RunFolder
from lmworks.evaluate import metrics
from lmworks.evaluate.multiple_choice import likeliest_choices, nearest_choices
from lmworks.evaluate.pseudo_likelihood import pseudo_scores
from lmworks.evaluate.scoring import score_texts
from lmworks.evaluate.text_halves import are_mutually_nearest, split_in_half
from lmworks.generate.embed import text_ids, vectors_of
from lmworks.generate.text_vectors import pooling_of
from lmworks.language_model.model import LanguageModel
from lmworks.language_model.ngram import NgramLanguageModel
from lmworks.language_model.opening import open_saved_model
from lmworks.model.head_views import with_language_head
from lmworks.run.evaluation import general_pieces
from lmworks.run.load import classifier_folder, load
from lmworks.run.source import recipe_of
from lmworks.text.multiple_choice import ChoiceQuestion, documentation_questions, read_questions

GENERAL_BYTES, QUESTIONS = 16_000, 60
HALVED_BYTES, APART, MORE_BYTES = 400, 8, 15
"""Texts that are divided into halves: their bytes, and of how many of them one is taken, since neighbours in a text are
alike and find each other; so more bytes are read, by this factor."""
LEVEL = 0.95


@dataclass(frozen=True)
class RowValues:
    """A figure of one model: sum(numerators) / sum(denominators) over rows.

    Attributes:
        figure: "bits per byte", "bits per byte by pseudo-likelihood", "texts whose halves find each other", "accuracy".
        better: "lower" or "higher".
        subject: what the rows are.
        numerators, denominators: a number for each row.
    """

    figure: str
    better: str
    subject: str
    numerators: list[float]
    denominators: list[float]

    @property
    def value(self) -> float:
        """The figure."""
        return sum(self.numerators) / sum(self.denominators)


@dataclass(frozen=True)
class Retained:
    """What a model can do that it was not tuned for.

    Attributes:
        text: on general text.
        choices: multiple-choice questions.
        answers: the index of the choice that was taken, by question.
    """

    text: RowValues
    choices: RowValues
    answers: list[int]


@dataclass(frozen=True)
class Change:
    """A figure before and after tuning.

    Attributes:
        before, after: the figure of both, with rows.
        difference: after minus before.
        interval: [low, high] of the difference, by paired bootstrap; None of fewer rows than a test needs.
    """

    before: RowValues
    after: RowValues
    difference: float
    interval: list[float] | None

    @classmethod
    def of(cls, before: RowValues, after: RowValues) -> Change:
        """The change between two figures of the same rows."""
        interval = None
        if len(before.numerators) >= metrics.FEWEST_ROWS:
            sides = [(side.numerators, side.denominators) for side in (before, after)]
            paired = metrics.paired_ratios(sides[0], sides[1], level=LEVEL)
            interval = [paired.low, paired.high]
        return cls(before, after, after.value - before.value, interval)


@dataclass(frozen=True)
class Forgetting:
    """What a run's model forgot.

    Attributes:
        base: source of the model that it was tuned from.
        text: on general text.
        choices: multiple-choice questions.
    """

    base: str
    text: Change
    choices: Change


def measure_forgetting(
    run: str | Path,
    general: str | Path | None = None,
    general_bytes: int = GENERAL_BYTES,
    questions: str | Path | Sequence[ChoiceQuestion] | None = None,
    before: Retained | None = None,
) -> Forgetting:
    """What the model of a run forgot.

    Args:
        run: its folder.
        general: a file of general text; None: Python's documentation topics that nothing is trained on.
        general_bytes: how much of it is read; MORE_BYTES times as much of an encoder without a language head.
        questions: a file (text/multiple_choice.read_questions), or questions; None: QUESTIONS on the documentation.
        before: of the same base, texts and questions: what :func:`retained` gave, so that it is measured once for
            several runs.

    Raises:
        InputError: the run has no base that could have known anything, or a file cannot be read.
    """
    base_source = base_of_run(run)
    base, tuned = open_saved_model(base_source), load(run)
    asked = choice_questions(questions)
    size = general_bytes if base.config.language_head else MORE_BYTES * general_bytes
    texts = general_pieces(general, size)
    if before is None:
        before = retained(base, *texts, asked)
    after = retained(with_base_head(tuned, base), *texts, asked)
    return Forgetting(base_source, Change.of(before.text, after.text), Change.of(before.choices, after.choices))


def choice_questions(questions: str | Path | Sequence[ChoiceQuestion] | None = None) -> list[ChoiceQuestion]:
    """The questions that are meant; arguments and errors as of :func:`measure_forgetting`."""
    if questions is None:
        return documentation_questions(QUESTIONS)
    return read_questions(questions) if isinstance(questions, str | Path) else list(questions)


def base_of_run(run: str | Path) -> str:
    """The source of the model that a run tuned.

    Raises:
        InputError: the folder is no run, or its model was trained from nothing.
    """
    folder = RunFolder(run)
    start = next(iter(folder.events("start")), {})
    if start.get("new") or classifier_folder(folder.path) is not None:
        fault = "its model was trained from nothing: it had nothing to forget"
        raise InputError(fault, str(run), "take a run of a model that was opened")
    return str(recipe_of(folder).model)


def with_base_head(tuned: LanguageModel, base: LanguageModel) -> LanguageModel:
    """A tuned model that can be asked what its base can be asked: with the base's language head where it lost its own,
    the base's tokenizer, pooling and format of inputs.

    Args:
        tuned: not changed.
        base: the model that it was tuned from.

    Raises:
        InputError: the tuned model has another backbone: the encoder alone of an encoder-decoder.
    """
    network = tuned.network
    if network.config.architecture != base.network.config.architecture:
        fault = f"of a {base.architecture} only the {tuned.architecture} was tuned, which no language head reads"
        raise InputError(fault, tuned.source, "forgetting of such a model is not measured")
    if base.config.language_head and not network.config.language_head:
        network = with_language_head(network, base.network)
    return replace(tuned, network=network, own_tokenizer=base.own_tokenizer, pooling=base.pooling, input_format=None)


def retained(model: LanguageModel, subject: str, texts: Sequence[str], questions: Sequence[ChoiceQuestion]) -> Retained:
    """What a model can do with general texts and questions.

    Args:
        model: a base, or of :func:`with_base_head`.
        subject: name of the texts.
        texts: pieces of general text.
        questions: multiple-choice questions.

    Raises:
        InputError: the model can do neither: an encoder-decoder, or an n-gram model; or a question is too long.
    """
    if isinstance(model, NgramLanguageModel) or model.architecture == "encoder-decoder":
        fault = "forgetting is measured of decoders and encoders"
        raise InputError(fault, model.source, "leave it out for this model")
    network, tokenizer = model.network.eval(), model.tokenizer
    if not model.config.language_head:
        answers = nearest_choices(network, tokenizer, model.pooling, questions)
        text = _halves(model, subject, texts)
    else:
        answers = likeliest_choices(network, tokenizer, questions)
        text = _bits(model, subject, texts)
    right = [float(answer == question.answer) for answer, question in zip(answers, questions, strict=True)]
    return Retained(text, RowValues("accuracy", "higher", "questions", right, [1.0] * len(right)), answers)


def _bits(model: LanguageModel, subject: str, texts: Sequence[str]) -> RowValues:
    """Bits per byte of each text."""
    is_decoder = model.architecture == "decoder"
    scores = (score_texts if is_decoder else pseudo_scores)(model.network, model.tokenizer, texts)
    bits = [score.nats / NATS_PER_BIT for score in scores]
    figure = "bits per byte" if is_decoder else "bits per byte by pseudo-likelihood"
    return RowValues(figure, "lower", subject, bits, [float(score.bytes) for score in scores])


def _halves(model: LanguageModel, subject: str, texts: Sequence[str]) -> RowValues:
    """Of pieces of some hundred bytes, whether their halves find each other."""
    pieces = _words(" ".join(texts), HALVED_BYTES)[::APART]
    if len(pieces) < 2:
        hint = f"give {10 * APART * HALVED_BYTES} bytes or more"
        raise InputError("is too short to be divided into texts with halves", subject, hint)
    halves = [half for piece in pieces for half in split_in_half(piece)]
    ids, _ = text_ids(model.network, model.tokenizer, halves, way := pooling_of(own=model.pooling))
    array = vectors_of(model.network, ids, way)
    found = are_mutually_nearest(array[0::2], array[1::2]).astype(np.float64).tolist()
    return RowValues("texts whose halves find each other", "higher", subject, found, [1.0] * len(found))


def _words(text: str, size: int) -> list[str]:
    """Pieces of a text, each of about so many bytes, of two words or more."""
    words, pieces = text.split(), [""]
    for word in words:
        if len(f"{pieces[-1]} {word}".encode()) > size:
            pieces.append("")
        pieces[-1] = f"{pieces[-1]} {word}".strip()
    return [piece for piece in pieces if " " in piece and len(piece.encode()) >= size // 2]
