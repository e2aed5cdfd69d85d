"""Benchmarks that ask which option is right.

A decoder's answer is the option that is likeliest after the prompt, by log p of the whole option, per byte, and per
token (Brown et al. 2020, section 2.4; Gao et al. 2021); a masked encoder's by its pseudo-likelihood. A sentence
encoder's is the option whose vector is nearest to that of the query. A classifier's is its label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names
from lmworks.suites.benchmark import Benchmark
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.expressions import evaluate, render
from lmworks.suites.files import Item
from lmworks.suites.form import MAIN, Answer, Answers, FormWithExamples, Question, as_list, as_text, belongs, read_texts
from lmworks.suites.prompts import PromptWriter, Sent, Shown, writer_of
from lmworks.suites.settings import SuiteSettings

PER_BYTE, PER_TOKEN = "per_byte", "per_token"
_OPTIONS = re.compile(r"\boptions\b")
PUBLISHED = "give the file as it was published, with its labels"


class Choices(FormWithExamples):
    """The likeliest of some options."""

    def questions(self, benchmark: Benchmark, items: Sequence[Item], settings: SuiteSettings) -> list[Question]:
        """See :class:`Form`; references are numbers of options."""
        return [_question(benchmark, item, settings) for item in items]

    def obstacle(self, benchmark: Benchmark, model: EvaluatedModel) -> str:
        """See :class:`Form`."""
        if _is_classified(benchmark, model) or model.likelihood:
            return ""
        if model.architecture == "encoder-decoder":
            return "options are asked of decoders and encoders"
        if benchmark.query is None:
            return "it needs likelihoods of texts, and this encoder has no language head"
        return ""

    def shown(self, benchmark: Benchmark, question: Question) -> Shown:
        """See :class:`Form`."""
        right = question.references[0]
        return Shown(question.prompts[right if len(question.prompts) > 1 else 0], question.options[right])

    def answers(
        self,
        benchmark: Benchmark,
        questions: Sequence[Question],
        shown: Sequence[Sequence[Shown]],
        model: EvaluatedModel,
        settings: SuiteSettings,
    ) -> Answers:
        """See :class:`Form`."""
        if _is_classified(benchmark, model):
            return _classified(benchmark, questions, model)
        if not model.likelihood:
            return _nearest(benchmark, questions, model)
        return _likeliest(benchmark, questions, shown, model, settings)


def is_listed(benchmark: Benchmark, settings: SuiteSettings) -> bool:
    """Whether the options stand in the prompt, which has a place for them, and a letter is asked."""
    is_asked = benchmark.letters if settings.letters is None else settings.letters
    return is_asked and _OPTIONS.search(benchmark.prompt) is not None


def _question(benchmark: Benchmark, item: Item, settings: SuiteSettings) -> Question:
    options, right = _options(benchmark, item)
    names = list(benchmark.label_words) or [str(number) for number in range(len(options))]
    values = {**item.values, "options": ""}
    if is_listed(benchmark, settings):
        move = settings.rotation % len(options)
        options, names = ([*listed[move:], *listed[:move]] for listed in (options, names))
        right = [(number - move) % len(options) for number in right]
        values["options"] = "".join(f"\n{ascii_uppercase[n]}. {text}" for n, text in enumerate(options))
    written = list(ascii_uppercase[: len(options)]) if is_listed(benchmark, settings) else options
    prompts, followed = [], []
    for option in written:
        prompts.append(render(benchmark.prompt, {**values, "option": option}, item.place))
        followed.append(render(benchmark.continuation, {**values, "option": option}, item.place))
    prompts = prompts if len(set(prompts)) > 1 else prompts[:1]
    query = [render(benchmark.query, values, item.place)] if benchmark.query is not None else []
    texts = query or read_texts(benchmark, item)
    return Question(item, prompts, followed, names, right, texts=texts, context=options, **belongs(benchmark, item))


def _options(benchmark: Benchmark, item: Item) -> tuple[list[str], list[int]]:
    """The options of a row, and the numbers of the right ones.

    Raises:
        InputError: they are no texts, there are fewer than two or more than letters, or the answer is none of them.
    """
    if benchmark.choices is None:
        names, options = list(benchmark.label_words), list(benchmark.label_words.values())
    else:
        listed = evaluate(benchmark.choices, item.values, item.place)
        options = [as_text(option, benchmark.choices, item.place) for option in as_list(listed)]
        names = options
    if not 2 <= len(options) <= len(ascii_uppercase):
        fault = f"{count_of(len(options), 'option')}, not 2 to {len(ascii_uppercase)}"
        raise InputError(fault, item.place, "give the file as it was published")
    assert benchmark.answer is not None  # the form needs it
    answers = as_list(evaluate(benchmark.answer, item.values, item.place))
    is_label = benchmark.choices is None
    right = [_number(answer, names, is_label, item.place) for answer in answers]
    if not right:
        raise InputError("has no right option", item.place, PUBLISHED)
    return options, right


def _number(answer: Any, names: list[str], is_label: bool, place: str) -> int:
    """The number of an answer among the options: by its name, or a whole number from 0."""
    name = str(answer) if is_label and not isinstance(answer, bool) else answer
    if name in names:
        return names.index(name)
    if not is_label and isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(names):
        return answer
    listed = list_names([str(known) for known in names])
    what = f"the label {answer!r} is none of the benchmark's: {listed}"
    fault = what if is_label else f"the answer {answer!r} is none of the options: {listed}"
    raise InputError(fault, place, PUBLISHED)


def _likeliest(
    benchmark: Benchmark,
    questions: Sequence[Question],
    shown: Sequence[Sequence[Shown]],
    model: EvaluatedModel,
    settings: SuiteSettings,
) -> Answers:
    """By likelihood: every prompt once with all options that follow it."""
    writer = writer_of(model.tokenizer, settings, model.architecture, template=False)
    if model.likelihood != "likelihood":
        writer = PromptWriter(model.tokenizer, False, bos=False)  # special tokens stand around each text anyway
    requests = [_requests(benchmark, *pair, writer, model) for pair in zip(questions, shown, strict=True)]
    flat = [request for parts in requests for request in parts]
    likelihoods = iter(model.choice_likelihoods([part["prompt"] for part in flat], [part["options"] for part in flat]))
    rows, cut = [], 0
    for question, parts in zip(questions, requests, strict=True):
        nats, tokens = np.zeros(len(question.options)), np.zeros(len(question.options))
        for part in parts:
            part["log_likelihoods"] = next(likelihoods).tolist()
            nats[part["numbers"]] = part["log_likelihoods"]
            tokens[part["numbers"]] = [len(ids) for ids in part["options"]]
        cut += any(part["cut"] for part in parts)
        sizes = np.array([len(option.strip().encode()) for option in question.options])
        predictions = {
            MAIN: int(nats.argmax()),
            PER_BYTE: int((nats / sizes).argmax()),
            PER_TOKEN: int((nats / tokens).argmax()),
        }
        rows.append(Answer(question, predictions, question.references, {"requests": parts}))
    described: dict[str, Any] = {"template": writer.template, "letters": is_listed(benchmark, settings)}
    if model.likelihood == "likelihood" and not writer.template:
        described["bos"] = settings.bos
    notes = [f"{count_of(cut, 'prompt')} cut at the beginning to the model's context"] if cut else []
    return Answers(model.likelihood, rows, described, notes)


def _requests(
    benchmark: Benchmark, question: Question, shown: Sequence[Shown], writer: PromptWriter, model: EvaluatedModel
) -> list[dict[str, Any]]:
    """What is sent for a question: prompts as ids, each with the options that follow it, and the numbers of these."""
    prompts = question.prompts if len(question.prompts) > 1 else question.prompts * len(question.options)
    sent = {prompt: writer.write(prompt, shown, benchmark.separator) for prompt in dict.fromkeys(prompts)}
    pairs = [
        (sent[prompt], writer.continuation(sent[prompt], option, benchmark.separator))
        for prompt, option in zip(prompts, question.options, strict=True)
    ]
    if model.likelihood == "likelihood":  # without BOS nothing predicts the first token of a whole text
        pairs = [(before, ids) if before.ids else (Sent(ids[:1], ""), ids[1:]) for before, ids in pairs]
    place = question.item.place
    if not all(ids for _, ids in pairs):
        raise InputError("an option has no token that could be scored", place, "give options of more text")
    room = None if model.context is None else model.context - model.frame_tokens - max(len(ids) for _, ids in pairs)
    parts: dict[tuple[int, ...], dict[str, Any]] = {}
    for number, (before, ids) in enumerate(pairs):
        before = writer.fitted(before, room, place)
        part = parts.setdefault(
            tuple(before.ids), {"prompt": before.ids, "options": [], "numbers": [], "cut": before.cut}
        )
        part["options"].append(ids)
        part["numbers"].append(number)
    return list(parts.values())


def _nearest(benchmark: Benchmark, questions: Sequence[Question], model: EvaluatedModel) -> Answers:
    """By vectors: the option that is nearest to the query."""
    texts = list(dict.fromkeys(text for question in questions for text in (question.texts[0], *question.context)))
    numbers = {text: number for number, text in enumerate(texts)}
    vectors, ids = model.vectors(texts), model.text_ids(texts)
    rows = []
    for question in questions:
        query, *others = (numbers[text] for text in (question.texts[0], *question.context))
        cosines = vectors[others] @ vectors[query]
        record = {"query": ids[query], "options": [ids[other] for other in others], "cosines": cosines.tolist()}
        rows.append(Answer(question, {MAIN: int(cosines.argmax())}, question.references, record))
    return Answers("vectors", rows, notes=model.taken_notes())


def _is_classified(benchmark: Benchmark, model: EvaluatedModel) -> bool:
    """Whether a model's own head, or a run that taught it labels, answers: where its labels are the benchmark's."""
    labels = model.classifier_labels(len(benchmark.texts))
    return bool(labels) and set(labels) == set(benchmark.label_words)


def _classified(benchmark: Benchmark, questions: Sequence[Question], model: EvaluatedModel) -> Answers:
    """By the labels of a classifier."""
    names = list(benchmark.label_words)
    inputs = [read_texts(benchmark, question.item) for question in questions]
    rows = []
    for question, ids, prediction in zip(questions, model.head_ids(inputs), model.predict(inputs), strict=True):
        record = {"input": ids, "probabilities": prediction.probabilities}
        rows.append(Answer(question, {MAIN: names.index(prediction.label)}, question.references, record))
    return Answers("classifier", rows)
