"""The prompt of a model that is not trained: calibration by its definition, nearest examples, the files of a folder."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError
from lmworks.data.prompt_templates import PromptTemplate
from lmworks.data.prompts import prompts
from lmworks.evaluate.choices import choice_likelihoods
from lmworks.language_model.choose_labels import choose_labels, count_choices
from lmworks.language_model.few_shot import (
    CONTENT_FREE,
    FILE,
    FewShotPrompt,
    FixedExamples,
    NearestExamples,
    text_of,
)
from lmworks.language_model.input_format import InputFormat
from lmworks.text.rows import DataSettings, Row, Table

LABELS = ["bad", "good"]
ROWS = [Row({"text": f"film {n}", "label": LABELS[n % 2]}, f"row {n}") for n in range(6)]
TABLE = Table("t", "labels", [*ROWS[:2], ROWS[5]], labels=LABELS)
TEMPLATE = PromptTemplate(instruction="One of: {labels}.", input="Text: {text}")
FIXED = FewShotPrompt(TEMPLATE, FixedExamples(ROWS[3:5]), calibrates=True)


def embed(texts) -> np.ndarray:
    """Vectors on a half circle, by the number at the end of a text."""
    angles = np.array([int(text.split()[-1]) for text in texts]) * np.pi / 8
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


NEAREST = FewShotPrompt(
    TEMPLATE, NearestExamples(ROWS[3:], embed([text_of(row) for row in ROWS[3:]]), 2, embed, "some"), calibrates=True
)


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory) -> lmworks.LanguageModel:
    return lmworks.load(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.mark.parametrize("prompt", [FIXED, NEAREST], ids=["fixed", "nearest"])
def test_calibration_divides_by_the_mean_probabilities_after_texts_that_say_nothing(model, prompt):
    settings = DataSettings()
    made = prompt.prompts(TABLE, model.tokenizer, settings)
    replies = choose_labels(partial(choice_likelihoods, model.network), made)
    shown = {tuple(map(text_of, before)) for before in prompt.examples.before([text_of(row) for row in TABLE.rows])}
    assert len(shown) == (1 if prompt is FIXED else 2)
    assert count_choices(made) == 2 * (len(TABLE) + len(CONTENT_FREE) * len(shown))
    for row, reply in zip(TABLE.rows, replies, strict=True):
        (before,) = prompt.examples.before([text_of(row)])
        texts = [row.values["text"], *CONTENT_FREE]
        rows = [TEMPLATE.ask(Row({"text": text, "label": "bad"}), before, LABELS) for text in texts]
        asked = prompts(replace(TABLE, rows=rows), model.tokenizer, settings)
        logs = choice_likelihoods(model.network, [each.ids for each in asked], [each.choices for each in asked])
        own, *free = [np.exp(each) / np.exp(each).sum() for each in logs]
        wanted = own / np.mean(free, axis=0)
        got = [reply.label_probabilities[label] for label in LABELS]
        np.testing.assert_allclose(got, wanted / wanted.sum(), atol=1e-5)
        assert reply.text == LABELS[int(wanted.argmax())]
    plain = replace(prompt, calibrates=False).prompts(TABLE, model.tokenizer, settings)
    assert [each.ids for each in plain] == [each.ids for each in made]
    assert count_choices(plain) == 2 * 3


def test_the_nearest_examples_stand_last():
    (before,) = NEAREST.examples.before(["film 5"])
    assert [text_of(row) for row in before] == ["film 4", "film 5"]
    (before,) = NEAREST.examples.before(["film 0"])
    assert [text_of(row) for row in before] == ["film 4", "film 3"]
    assert NEAREST.examples.before([]) == []


@pytest.mark.parametrize("prompt", [FIXED, NEAREST], ids=["fixed", "nearest"])
def test_a_folder_gives_the_same_prompts(model, prompt, tmp_path):
    prompt.save(tmp_path)
    sources = []

    def embed_by(source: str):
        sources.append(source)
        return embed

    opened = FewShotPrompt.open(tmp_path, embed_by)
    assert opened is not None
    args = (TABLE, model.tokenizer, DataSettings())
    assert opened.prompts(*args) == prompt.prompts(*args)
    assert sources == (["some"] if prompt is NEAREST else [])
    (tmp_path / FILE).write_text(json.dumps({"nearest": "many"}))
    with pytest.raises(InputError, match="nearest"):
        FewShotPrompt.open(tmp_path, embed_by)
    assert FewShotPrompt.open(tmp_path / "other", embed_by) is None


def test_a_model_with_a_prompt_asks_by_it_wherever_it_is_asked(model, tmp_path):
    form = InputFormat(task="labels", kind="label", labels=tuple(LABELS))
    asked = replace(model, input_format=form, few_shot=FIXED)
    asked_prompts = FIXED.prompts(TABLE, model.tokenizer, DataSettings())
    wanted = choose_labels(partial(choice_likelihoods, model.network), asked_prompts)
    texts = [row.values["text"] for row in TABLE.rows]
    replies = asked.generate(texts, details=True)
    predicted = asked.predict(texts)
    for own, reply, prediction in zip(wanted, replies, predicted, strict=True):
        assert reply.label_probabilities == pytest.approx(own.label_probabilities, abs=1e-5)
        assert prediction.probabilities == pytest.approx(own.label_probabilities, abs=1e-5)
    assert asked.chat([{"role": "user", "content": texts[0]}]) == wanted[0].text
    assert asked.labels == LABELS
    saved = lmworks.load(asked.save(tmp_path / "saved"))
    assert saved.few_shot is not None
    assert saved.predict(texts)[0].probabilities == pytest.approx(wanted[0].label_probabilities, abs=1e-5)
    with pytest.raises(InputError, match="single texts"):
        asked.predict([("a", "b")])


def test_a_conversation_comes_after_examples(model):
    rows = [Row({"prompt": "1 and 1?", "completion": "2"})]
    prompt = FewShotPrompt(PromptTemplate(instruction="Add.", input="Q: {prompt}"), FixedExamples(rows))
    for kind in ("prompt", "text"):
        form = InputFormat(task="instructions", kind=kind)
        asked = replace(model, input_format=form, few_shot=prompt)
        text = asked.tokenizer.decode(asked._prompt("2 and 2?", raw=False).ids, skip_special=False)
        assert text == (
            "<|im_start|>user\nAdd.\n\nQ: 1 and 1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
            "<|im_start|>user\nQ: 2 and 2?<|im_end|>\n<|im_start|>assistant\n"
        )
        assert asked._conversation([{"role": "user", "content": "2 and 2?"}], raw=False).ids == (
            asked._prompt("2 and 2?", raw=False).ids
        )
        assert asked._conversation([{"role": "user", "content": "2 and 2?"}], raw=True).ids != (
            asked._prompt("2 and 2?", raw=False).ids
        )
