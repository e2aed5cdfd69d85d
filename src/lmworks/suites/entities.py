"""Benchmarks of the entities in sentences: by the tags of a model's head, or in the words of a model that writes.

A written answer names each entity after its type: ``person: Ada Lovelace; location: London``, or ``none``. An entity
counts for the words of the sentence that it names, the first of them that are free; what names no words of the sentence
is counted in a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names
from lmworks.generate.sampling import SamplingSettings
from lmworks.suites.benchmark import Benchmark
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.expressions import render
from lmworks.suites.files import Item
from lmworks.suites.form import MAIN, Answer, Answers, FormWithExamples, Question, belongs
from lmworks.suites.prompts import BLANK_LINE, Shown, writer_of
from lmworks.suites.settings import SuiteSettings
from lmworks.text.tags import OUTSIDE, entities, split_tag

NONE = "none"
BETWEEN = "; "
Found = list[tuple[str, str]]
"""Types and texts of entities."""


class Entities(FormWithExamples):
    """The entities in a sentence."""

    def questions(self, benchmark: Benchmark, items: Sequence[Item], settings: SuiteSettings) -> list[Question]:
        """See :class:`Form`; the reference is the tags of the words."""
        return [_question(benchmark, item) for item in items]

    def obstacle(self, benchmark: Benchmark, model: EvaluatedModel) -> str:
        """See :class:`Form`."""
        if model.tags:
            types = {split_tag(tag)[1] for tag in model.tags if tag != OUTSIDE}
            return "" if types & set(benchmark.label_words) else f"its head has other tags: {list_names(sorted(types))}"
        return "" if model.writes else "it needs a head that tags words, or a model that writes"

    def shown(self, benchmark: Benchmark, question: Question) -> Shown:
        """See :class:`Form`."""
        tokens, tags = question.context, question.references[0]
        found = [(span.kind, " ".join(tokens[span.first : span.end])) for span in entities(tags)]
        answer = BETWEEN.join(f"{benchmark.label_words[kind]}: {text}" for kind, text in found) or NONE
        return Shown(question.prompts[0], answer)

    def answers(
        self,
        benchmark: Benchmark,
        questions: Sequence[Question],
        shown: Sequence[Sequence[Shown]],
        model: EvaluatedModel,
        settings: SuiteSettings,
    ) -> Answers:
        """See :class:`Form`."""
        if model.tags:
            return _tagged(questions, model)
        writer = writer_of(model.tokenizer, settings, model.architecture, template=True)
        new = settings.max_tokens or benchmark.max_tokens
        stop = [] if writer.template else [*benchmark.stop, BLANK_LINE]
        room = None if model.context is None else model.context - new
        sent = [
            writer.fitted(writer.write(question.prompts[0], before), room, question.item.place)
            for question, before in zip(questions, shown, strict=True)
        ]
        replies = model.write([prompt.ids for prompt in sent], SamplingSettings(max_tokens=new, stop=stop))
        rows, lost = [], 0
        for question, prompt, reply in zip(questions, sent, replies, strict=True):
            found = read_entities(reply.text, benchmark.label_words)
            tags, missed = tags_of_entities(question.context, found)
            lost += missed
            record = {"prompt": prompt.ids, "written": reply.ids, "stop_reason": reply.stop_reason}
            rows.append(Answer(question, {MAIN: tags}, question.references, record))
        notes = [f"{count_of(lost, 'entity')} named that no words of the sentence are"] if lost else []
        return Answers("text", rows, {"template": writer.template, "max_tokens": new}, notes)


def read_entities(text: str, words: dict[str, str]) -> Found:
    """The entities that an answer names.

    Args:
        text: of the answer; its first line counts.
        words: of each type, how it is written.
    """
    types = {word.lower(): kind for kind, word in words.items()}
    parts = [part.partition(":") for part in text.strip().partition("\n")[0].split(";")]
    return [
        (types[before.strip().lower()], name.strip())
        for before, _, name in parts
        if before.strip().lower() in types and name.strip()
    ]


def tags_of_entities(tokens: Sequence[str], found: Found) -> tuple[list[str], int]:
    """IOB2 tags of the words of a sentence, and how many entities are no words of it.

    Args:
        tokens: of the sentence.
        found: types and texts of entities.
    """
    tags, missed = [OUTSIDE] * len(tokens), 0
    for kind, name in found:
        words = name.split()
        places = [
            begin
            for begin in range(len(tokens) - len(words) + 1)
            if list(tokens[begin : begin + len(words)]) == words
            and all(tag == OUTSIDE for tag in tags[begin : begin + len(words)])
        ]
        if not places:
            missed += 1
            continue
        inside = [f"I-{kind}"] * (len(words) - 1)
        tags[places[0] : places[0] + len(words)] = [f"B-{kind}", *inside]
    return tags, missed


def _question(benchmark: Benchmark, item: Item) -> Question:
    tokens, tags = _column(item, "tokens"), _column(item, "tags")
    unknown = sorted({split_tag(tag)[1] for tag in tags if tag != OUTSIDE} - set(benchmark.label_words))
    if unknown:
        fault = f"the tag {unknown[0]!r} is none of the benchmark's: {list_names(list(benchmark.label_words))}"
        raise InputError(fault, item.place, "give the file as it was published")
    prompt = render(benchmark.prompt, {**item.values, "text": " ".join(tokens)}, item.place)
    return Question(item, [prompt], references=[tags], context=tokens, **belongs(benchmark, item))


def _column(item: Item, name: str) -> list[Any]:
    value = item.values.get(name)
    if not isinstance(value, list) or not value:
        raise InputError(
            f"has no list of {name}", item.place, "give a file in a CoNLL format, or lists of tokens and tags"
        )
    return value


def _tagged(questions: Sequence[Question], model: EvaluatedModel) -> Answers:
    """By the tags of a head."""
    tagged = model.tag([question.context for question in questions])
    rows = [
        Answer(question, {MAIN: list(text.tags)}, question.references, {"tokens": question.context})
        for question, text in zip(questions, tagged, strict=True)
    ]
    return Answers("tags of a head", rows)
