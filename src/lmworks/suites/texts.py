"""Benchmarks of texts: those that a model writes, and the last word of a text that it goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.generate.sampling import SamplingSettings
from lmworks.suites.benchmark import Benchmark
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.expressions import evaluate, render
from lmworks.suites.files import Item
from lmworks.suites.form import MAIN, Answer, Answers, Form, FormWithExamples, Question, as_list, as_text, belongs
from lmworks.suites.prompts import BLANK_LINE, Shown, writer_of
from lmworks.suites.settings import SuiteSettings


class Generation(FormWithExamples):
    """A text that the model writes, greedily."""

    def questions(self, benchmark: Benchmark, items: Sequence[Item], settings: SuiteSettings) -> list[Question]:
        """See :class:`Form`; references are texts."""
        return [_written_question(benchmark, item) for item in items]

    def obstacle(self, benchmark: Benchmark, model: EvaluatedModel) -> str:
        """See :class:`Form`."""
        return "" if model.writes else f"it writes texts, which no {model.architecture} does"

    def shown(self, benchmark: Benchmark, question: Question) -> Shown:
        """See :class:`Form`."""
        item = question.item
        if benchmark.example_answer is not None:
            return Shown(question.prompts[0], render(benchmark.example_answer, item.values, item.place))
        return Shown(question.prompts[0], question.references[0])

    def answers(
        self,
        benchmark: Benchmark,
        questions: Sequence[Question],
        shown: Sequence[Sequence[Shown]],
        model: EvaluatedModel,
        settings: SuiteSettings,
    ) -> Answers:
        """See :class:`Form`."""
        writer = writer_of(model.tokenizer, settings, model.architecture, template=True)
        new = settings.max_tokens or benchmark.max_tokens
        stop = [] if writer.template else [*benchmark.stop, *([BLANK_LINE] if any(shown) else [])]
        room = None if model.context is None else model.context - new
        pairs = zip(questions, shown, strict=True)
        sent = [
            writer.fitted(writer.write(question.prompts[0], before, benchmark.separator), room, question.item.place)
            for question, before in pairs
        ]
        replies = model.write([prompt.ids for prompt in sent], SamplingSettings(max_tokens=new, stop=stop))
        rows = [
            Answer(
                question,
                {MAIN: reply.text.strip()},
                question.references,
                {"prompt": prompt.ids, "written": reply.ids, "stop_reason": reply.stop_reason},
            )
            for question, prompt, reply in zip(questions, sent, replies, strict=True)
        ]
        cut = sum(prompt.cut > 0 for prompt in sent)
        ended = sum(reply.stop_reason in ("length", "context") for reply in replies)
        notes = [f"{count_of(cut, 'prompt')} cut at the beginning to the model's context"] if cut else []
        notes += [f"{count_of(ended, 'text')} ended at {new} tokens"] if ended else []
        described: dict[str, Any] = {"template": writer.template, "max_tokens": new}
        if not writer.template and not writer.source:
            described["bos"] = settings.bos
        return Answers("text", rows, described, notes)


def _written_question(benchmark: Benchmark, item: Item) -> Question:
    assert benchmark.references is not None  # the form needs it
    listed = as_list(evaluate(benchmark.references, item.values, item.place))
    references = [as_text(text, benchmark.references, item.place) for text in listed]
    if not references:
        raise InputError("has no right answer", item.place, "give the file as it was published")
    prompt = render(benchmark.prompt, item.values, item.place)
    return Question(item, [prompt], references=references, **belongs(benchmark, item))


class LastWord(Form):
    """How likely the end of a text is: its nats, and whether the model writes it where it takes the likeliest tokens
    (Paperno et al. 2016)."""

    def questions(self, benchmark: Benchmark, items: Sequence[Item], settings: SuiteSettings) -> list[Question]:
        """See :class:`Form`; the one option is the end, which is right."""
        questions = []
        for item in items:
            prompt, end = (render(text, item.values, item.place) for text in (benchmark.prompt, benchmark.continuation))
            as_text(prompt, benchmark.prompt, item.place)
            as_text(end, benchmark.continuation, item.place)
            questions.append(Question(item, [prompt], [end], ["right", "other"], [0], **belongs(benchmark, item)))
        return questions

    def obstacle(self, benchmark: Benchmark, model: EvaluatedModel) -> str:
        """See :class:`Form`."""
        return (
            "" if model.likelihood == "likelihood" else "it needs the likelihood of the next word, which decoders give"
        )

    def answers(
        self,
        benchmark: Benchmark,
        questions: Sequence[Question],
        shown: Sequence[Sequence[Shown]],
        model: EvaluatedModel,
        settings: SuiteSettings,
    ) -> Answers:
        """See :class:`Form`."""
        writer = writer_of(model.tokenizer, settings, model.architecture, template=False)
        prompts, ends, cut = [], [], 0
        for question in questions:
            sent = writer.write(question.prompts[0])
            end = writer.continuation(sent, question.options[0], benchmark.separator)
            room = None if model.context is None else model.context - len(end)
            sent = writer.fitted(sent, room, question.item.place)
            prompts.append(sent.ids)
            ends.append(end)
            cut += sent.cut > 0
        rows = []
        likelihoods, written = (
            model.choice_likelihoods(prompts, [[end] for end in ends]),
            model.are_greedy(prompts, ends),
        )
        for question, prompt, end, likely, greedy in zip(questions, prompts, ends, likelihoods, written, strict=True):
            nats = -float(likely[0])
            record = {"requests": [{"prompt": prompt, "options": [end], "log_likelihoods": [-nats]}], "greedy": greedy}
            numbers = {"nats": nats, "words": float(len(question.options[0].split()))}
            rows.append(Answer(question, {MAIN: 0 if greedy else 1}, [0], record, numbers))
        described = {"template": writer.template, **({} if writer.template else {"bos": settings.bos})}
        notes = [f"{count_of(cut, 'prompt')} cut at the beginning to the model's context"] if cut else []
        return Answers("likelihood", rows, described, notes)
