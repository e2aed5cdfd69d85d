"""Questions whose answer is a span: windows, the saved head beside transformers and peft, thresholds, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import save_questions
from tiny_tasks import bert_like, model, roberta_like, t5_like

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.figures import number
from lmworks.base.journal import RunFolder
from lmworks.data.batch import SPAN_END, SPAN_START, Example
from lmworks.evaluate.answer_spans import STRIDE, best_span
from lmworks.families.bert import BERT
from lmworks.language_model.find_answers import SpanAnswer
from lmworks.language_model.head_inputs import HeadInputs
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.question_windows import encode_questions, windows_of
from lmworks.model.head_requests import SPANS, HeadRequest
from lmworks.tasks.extract import Extract, sentence_of_most_words
from lmworks.tasks.settings import TaskSettings
from lmworks.text import corpus
from lmworks.text.rows import DataSettings
from lmworks.text.tokenizer import Tokenizer

TRAIN = {
    "steps": 60, "batch_size": 8, "learning_rate": 1e-2, "precision": "float32", "threads": 1, "warmup": 0,
    "evaluate_every": 60,
}  # fmt: skip
ENCODER, DECODER, BART = "tinybert", "llama-1m", "bart-base"
ANIMALS, PLACES = ["cat", "dog", "bird", "cow"], ["tree", "house", "moon", "sea"]


def question(number: int, has_answer: bool = True) -> dict[str, Any]:
    """Which animal climbed what: the answer is the animal."""
    animal, place = ANIMALS[number % 4], PLACES[number // 4 % 4]
    context = f"{'Once ' * (number % 3)}the {animal} climbed the {place} {number}."
    answers = {"text": [animal], "answer_start": [context.index(animal)]} if has_answer else {}
    asked = "Who climbed?" if has_answer else "Who ate?"
    return {"question": asked, "context": context, "answers": {"text": [], "answer_start": [], **answers}}


def tuned(model_folder: str, folder: Path, method: str, rows: list[dict[str, Any]] | None = None, **more: Any) -> Any:
    rows = rows or [question(number) for number in range(60)]
    data = {"source": str(save_questions(folder / "rows.jsonl", rows)), "held_out": 12, **more.pop("data", {})}
    settings = {"train": TRAIN, "evaluate": {"samples": 2}, **more}
    return lmworks.tune(model_folder, data, method=method, out=folder / "run", **settings)


def config_of(tokenizer: Tokenizer, context: int) -> Any:
    config = model("encoder", vocab_size=tokenizer.vocab_size, max_position_embeddings=context)
    config = config.model_copy(update={"language_head": False, "heads": ()})
    return BERT.with_head(config, HeadRequest(SPANS, 2, "span"))


def task_of(tokenizer: Tokenizer, context: int, **settings: Any) -> Extract:
    return Extract(TaskSettings(name="extract", **settings), tokenizer, config_of(tokenizer, context))


def span_of(example: Example) -> tuple[int, int]:
    labels = example.labels[SPANS]
    first, last = (int(labels.places[(labels.classes & mark) > 0][0]) for mark in (SPAN_START, SPAN_END))
    return first, last


def their_answer(theirs: Any, opened: Any, asked: str, context: str) -> SpanAnswer:
    """The best span of transformers' logits over the ids that we give our own network."""
    import torch

    inputs = HeadInputs.of(opened.tokenizer, opened.config, None, opened.config.max_position_embeddings)
    (encoded,) = encode_questions([(asked, context)], ["row"], opened.tokenizer, inputs)
    parts = []
    for window in windows_of(encoded, inputs, STRIDE):
        ids = torch.tensor(window.source if window.source is not None else window.ids)[None].long()
        types = {} if window.types is None else {"token_type_ids": torch.tensor(window.types)[None].long()}
        with torch.no_grad():
            output = theirs(input_ids=ids, **types)
        logits = torch.stack([output.start_logits[0], output.end_logits[0]], dim=1).float().numpy()
        part = window.origin
        inside = logits[part.offset : part.offset + part.end - part.begin]
        parts.append((part.begin, np.concatenate([logits[:1], inside])))
    best = best_span(parts, len(encoded.tokens.ids), 30)
    start, end = encoded.characters(best.first, best.last)
    return SpanAnswer(context[start:end], start, end, best.probability)


def check_answers(found: list[SpanAnswer], expected: list[SpanAnswer]) -> None:
    """The same spans with the same probabilities."""
    assert [answer[:3] for answer in found] == [answer[:3] for answer in expected]
    probabilities = [answer.probability for answer in expected]
    assert [answer.probability for answer in found] == pytest.approx(probabilities, abs=1e-4)


@pytest.mark.parametrize("preset", [ENCODER, DECODER, BART])
def test_transformers_finds_our_answers_in_a_trained_folder(
    models: dict[str, str], preset: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    run = tuned(models[preset], tmp_path, "full")
    opened = lmworks.load(str(run.folder))
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(run.folder / "final").eval()
    rows = [question(number) for number in range(100, 108)]
    found = [opened.answer_question(row["question"], row["context"]) for row in rows]
    check_answers(found, [their_answer(theirs, opened, row["question"], row["context"]) for row in rows])
    for answer, row in zip(found, rows, strict=True):
        assert row["context"][answer.start : answer.end] == answer.text
        assert 0 < answer.probability <= 1
        assert answer.null_probability is None  # every question of its data had an answer
    theirs.save_pretrained(tmp_path / "theirs")
    opened.tokenizer.save(tmp_path / "theirs")  # a folder that no run of ours has written
    foreign = lmworks.load(tmp_path / "theirs")
    check_answers(foreign.answer_questions([(row["question"], row["context"]) for row in rows]), found)
    after = next(event for event in RunFolder(run.folder).events("evaluation") if event["when"] == "after")
    before = next(event for event in RunFolder(run.folder).events("evaluation") if event["when"] == "before")
    assert after["questions"]["rows"] == len(after["questions"]["row_f1"]) == 12
    assert before["name"] == "sentence with most words of the question"
    assert after["held_out"]["loss"] < np.log(8)  # of guessing among the tokens of a context


def test_peft_opens_the_adapter_with_its_head(models: dict[str, str], tmp_path: Path) -> None:
    import torch

    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    run = tuned(models[ENCODER], tmp_path, "lora")
    final = run.folder / "final"
    assert json.loads((final / "adapter_config.json").read_text())["task_type"] == "QUESTION_ANS"
    kind = transformers.AutoModelForQuestionAnswering
    theirs = peft.PeftModel.from_pretrained(kind.from_pretrained(models[ENCODER], dtype=torch.float32), final).eval()
    theirs = theirs.get_base_model()  # with its adapter: PEFT's own forward leaves out token_type_ids
    opened = lmworks.load(str(run.folder))
    rows = [question(number) for number in range(100, 106)]
    found = [opened.answer_question(row["question"], row["context"]) for row in rows]
    check_answers(found, [their_answer(theirs, opened, row["question"], row["context"]) for row in rows])
    merged = lmworks.load(opened.save(tmp_path / "merged"))
    check_answers([merged.answer_question(row["question"], row["context"]) for row in rows], found)


def test_questions_without_answer_choose_a_threshold_that_is_saved(models: dict[str, str], tmp_path: Path) -> None:
    rows = [question(number, has_answer=number % 3 > 0) for number in range(90)]
    run = tuned(models[ENCODER], tmp_path, "full", rows, data={"held_out": 24})
    after = next(event for event in RunFolder(run.folder).events("evaluation") if event["when"] == "after")["questions"]
    assert after["no_answer"] > 0
    assert after["best_f1"] >= after["f1"]
    saved = InputFormat.read(run.folder / "final")
    assert saved is not None
    assert saved.null_threshold == after["best_f1_threshold"]
    journal = run.folder / "journal.jsonl"
    kept = [line for line in journal.read_text().splitlines() if json.loads(line)["event"] != "finish"]
    journal.write_text("".join(f"{line}\n" for line in kept))  # as if it had been killed after this evaluation
    lmworks.resume(run.folder)
    assert InputFormat.read(run.folder / "final") == saved
    opened = lmworks.load(str(run.folder))
    asked = question(200)
    assert opened.answer_question(asked["question"], asked["context"]).null_probability is not None
    opened.input_format = saved.model_copy(update={"null_threshold": -1e9})
    assert opened.answer_question(asked["question"], asked["context"])[:3] == ("", 0, 0)
    card = lmworks.report(run.folder)
    assert card["questions"]["no_answer"] == after["no_answer"]
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert f"exceeds that of the best span by more than {number(saved.null_threshold)}" in page
    assert {"f1", "exact", "no_answer_f1", "best_f1"} <= {measure["key"] for measure in card["measures"]}


@pytest.mark.parametrize("make", [bert_like, roberta_like, t5_like])
def test_windows_cover_the_context_and_point_to_the_answer_or_the_first_token(make: Any) -> None:
    tokenizer = make()
    context = "The sky is blue, and the sea is too. Who are you? I am nobody; who are you? The cat climbed the tree."
    row = {"question": "who?", "context": context, "answers": [{"text": "nobody", "answer_start": 55}]}
    assert context[55:61] == "nobody"
    task = task_of(tokenizer, 28, stride=6)
    examples = task.examples(corpus.read([row]), DataSettings(), 28)
    assert len(examples) > 2
    assert examples.report.chunked == 1
    covered: set[int] = set()
    pointing = []
    for example in examples:
        assert len(example) <= 28
        window = example.origin.window
        held = example.ids[window.offset : window.offset + window.end - window.begin]
        assert held.tolist() == window.question.tokens.ids[window.begin : window.end].tolist()
        covered |= set(range(window.begin, window.end))
        first, last = span_of(example)
        pointing.append(last > 0)
        if last > 0:
            begin = window.begin - window.offset
            assert window.question.characters(first + begin, last + begin) == (55, 61)
    assert covered == set(range(len(examples[0].origin.window.question.tokens.ids)))
    assert 0 < sum(pointing) < len(pointing)
    following = [(a.origin.window, b.origin.window) for a, b in zip(examples.items, examples.items[1:], strict=False)]
    assert all(before.end - after.begin == 6 for before, after in following)


def test_types_and_places_are_those_of_bert() -> None:
    task = task_of(bert_like(), 64)
    row = {"question": "who?", "context": "the cat climbed", "answers": [{"text": "cat", "answer_start": 4}]}
    (example,) = task.examples(corpus.read([row]), DataSettings(), 64).items
    tokens = [task.tokenizer.piece(token) for token in example.ids.tolist()]
    second = tokens.index("[SEP]") + 1
    assert example.types.tolist() == [0] * second + [1] * (len(tokens) - second)
    assert example.labels[SPANS].places.tolist() == [0, *range(second, len(tokens) - 1)]
    first, last = span_of(example)
    assert task.tokenizer.decode(example.ids[first : last + 1].tolist()) == "cat"


def test_a_long_context_without_windows_is_refused_with_a_hint_that_works() -> None:
    row = {"question": "who?", "context": "the cat climbed " * 20, "answers": [{"text": "cat", "answer_start": 4}]}
    table = corpus.read([row])
    with pytest.raises(InputError, match=r"row 1: the context has \d+ tokens") as error:
        task_of(bert_like(), 40, stride=0).examples(table, DataSettings(), 40)
    assert "--task.stride 128" in error.value.hint
    assert len(task_of(bert_like(), 40, stride=128).examples(table, DataSettings(), 40)) > 1


def test_an_answer_inside_a_token_is_counted() -> None:
    row = {"question": "who?", "context": "the cat climbed", "answers": [{"text": "h", "answer_start": 1}]}
    tokenizer = bert_like()
    assert len(tokenizer.encode("the")) == 1
    examples = task_of(tokenizer, 64).examples(corpus.read([row]), DataSettings(), 64)
    assert "in 1 row the answer begins or ends inside a token: what can be found is longer" in examples.report.notes


def test_rows_without_answers_are_not_learned() -> None:
    table = corpus.read([{"question": "who?", "context": "the cat"}], DataSettings(kind="questions"))
    with pytest.raises(InputError, match="row 1: the row has no answers"):
        task_of(bert_like(), 64).examples(table, DataSettings(), 64)


def test_a_model_without_the_head_says_how_to_train_one(models: dict[str, str]) -> None:
    with pytest.raises(InputError, match="no head that finds answers") as error:
        lmworks.load(models[DECODER]).answer_question("Who?", "The cat.")
    assert "lmworks tune" in error.value.hint
    with pytest.raises(InputError, match="context: a NoneType"):
        lmworks.load(models[DECODER]).answer_question("Who?", None)  # type: ignore[arg-type]


def test_the_baseline_is_the_sentence_of_most_words() -> None:
    context = "The sky is blue. A cat climbed the old tree! Nobody knows."
    assert sentence_of_most_words("What did the cat climb, which tree?", context) == "A cat climbed the old tree!"
    assert sentence_of_most_words("Zebra?", context) == "The sky is blue."
