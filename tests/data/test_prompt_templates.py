"""Rows that are asked after others: as turns or as text, the beginning of the example that would train on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_tokenizers import CHATML, byte_level

from lmworks.base.errors import InputError
from lmworks.data.answers import answer_examples
from lmworks.data.prompt_templates import PromptTemplate, default_templates, read_templates
from lmworks.data.prompts import prompts
from lmworks.text.rows import DataSettings, Row, Table

LABELS = ["bad", "good"]
ROWS = [Row({"text": f"text {n}", "label": LABELS[n % 2]}, f"row {n}") for n in range(4)]
TEMPLATE = PromptTemplate(instruction="One of: {labels}.", input="Text: {text}\nLabel:")
CHAT = Row({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},
                         {"role": "assistant", "content": "Hello."}]})  # fmt: skip


def asked(template: PromptTemplate, row: Row = ROWS[0], shown: list[Row] = ROWS[1:3], kind: str = "labels") -> Table:
    labels = LABELS if kind == "labels" else []
    return Table("t", kind, [template.ask(row, shown, labels)], labels=labels)  # type: ignore[arg-type]


def test_examples_are_turns_of_the_chat_template_and_carry_no_loss():
    tokenizer, settings = byte_level(CHATML, end_ids=[4]), DataSettings(system="Be brief.")
    (prompt,) = prompts(asked(TEMPLATE), tokenizer, settings)
    assert tokenizer.decode(prompt.ids, skip_special=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nOne of: bad, good.\n\nText: text 1\nLabel:<|im_end|>\n"
        "<|im_start|>assistant\ngood<|im_end|>\n"
        "<|im_start|>user\nText: text 2\nLabel:<|im_end|>\n<|im_start|>assistant\nbad<|im_end|>\n"
        "<|im_start|>user\nText: text 0\nLabel:<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [tokenizer.decode(choice, skip_special=False) for choice in prompt.choices] == [
        "bad<|im_end|>", "good<|im_end|>"
    ]  # fmt: skip
    (example,) = answer_examples(asked(TEMPLATE), tokenizer, settings, 1000).items
    begin = len(prompt.ids)
    assert example.ids[:begin].tolist() == prompt.ids
    assert example.ids[begin : begin + len(prompt.choices[0])].tolist() == prompt.choices[0]
    assert example.loss.nonzero()[0].tolist() == list(range(begin, begin + len(prompt.choices[0])))


def test_without_a_template_of_chats_they_are_text_divided_by_blank_lines():
    tokenizer, settings = byte_level(), DataSettings()
    (prompt,) = prompts(asked(TEMPLATE), tokenizer, settings)
    assert tokenizer.decode(prompt.ids) == (
        "One of: bad, good.\n\nText: text 1\nLabel: good\n\nText: text 2\nLabel: bad\n\nText: text 0\nLabel:"
    )
    assert [tokenizer.decode(choice) for choice in prompt.choices] == [" bad\n\n", " good\n\n"]
    assert prompt.stop == ("\n\n",)
    (example,) = answer_examples(asked(TEMPLATE), tokenizer, settings, 1000).items
    assert example.ids.tolist() == [*prompt.ids, *prompt.choices[0]]
    assert example.loss.sum() == len(prompt.choices[0])
    (alone,) = prompts(asked(TEMPLATE, shown=[]), tokenizer, settings)
    assert alone.stop == ()
    assert tokenizer.decode(alone.choices[0], skip_special=False) == " bad</s>"


def test_prompts_with_completions_and_conversations():
    tokenizer, template = byte_level(CHATML, end_ids=[4]), PromptTemplate(instruction="Be exact.", input="Q: {prompt}")
    rows = [Row({"prompt": f"What is {n}?", "completion": f"It is {n}."}, f"row {n}") for n in range(2)]
    (prompt,) = prompts(asked(template, rows[0], rows[1:], "completion"), tokenizer, DataSettings())
    assert tokenizer.decode(prompt.ids, skip_special=False) == (
        "<|im_start|>user\nBe exact.\n\nQ: What is 1?<|im_end|>\n<|im_start|>assistant\nIt is 1.<|im_end|>\n"
        "<|im_start|>user\nQ: What is 0?<|im_end|>\n<|im_start|>assistant\n"
    )
    (chat,) = prompts(asked(template, CHAT, [CHAT], "chat"), tokenizer, DataSettings())
    assert tokenizer.decode(chat.ids, skip_special=False) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nBe exact.\n\nQ: Hi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nQ: Hi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.reference == "Hello."


def test_a_template_without_words_asks_as_training_does():
    tokenizer, settings = byte_level(CHATML, end_ids=[4]), DataSettings()
    plain = Table("t", "labels", ROWS, labels=LABELS)
    same = Table("t", "labels", [PromptTemplate().ask(row, [], LABELS) for row in ROWS], labels=LABELS)
    assert prompts(same, tokenizer, settings) == prompts(plain, tokenizer, settings)


def test_candidates_in_files(tmp_path: Path):
    yaml, text = tmp_path / "prompts.yaml", tmp_path / "prompts.txt"
    yaml.write_text("prompts:\n  - 'Text: {text}'\n  - {instruction: 'One of {labels}.', input: '{text}!'}\n")
    assert read_templates(yaml, True) == [
        PromptTemplate(input="Text: {text}"), PromptTemplate(instruction="One of {labels}.", input="{text}!")
    ]  # fmt: skip
    text.write_text("Answer: {prompt}\nNow:\n---\n{prompt}\n")
    assert [each.input for each in read_templates(text, False)] == ["Answer: {prompt}\nNow:", "{prompt}"]
    for has_labels in (True, False):
        assert default_templates(has_labels)[0] == PromptTemplate()
        assert len(set(default_templates(has_labels))) > 2


@pytest.mark.parametrize(
    ("content", "has_labels", "words"),
    [
        ("prompts: ['Say it.']", True, r"prompt 1, input: has no \{text\}"),
        ("prompts: ['{text}', 'Q: {text}']", False, r"prompt 1, input: has no \{prompt\}"),
        ("prompts: ['{prompt} {labels}']", False, r"has \{labels\}.*\n.*fields here are \{prompt\}"),
        ("prompts: [{instruction: 'As {text}', input: '{text}'}]", True, r"instruction: has \{text\}"),
        ("prompts: ['{text} {']", True, "prompt 1, input: not a pattern"),
        ("prompts: ['{text:>+5}']", True, r"prompt 1, input: has a field with a format"),
        ("prompts: [{input: ''}]", True, r"has no \{text\}"),
        ("prompts: [{word: 'a'}]", True, "word"),
        ("prompts: []", True, "no list of prompts"),
        ("prompts: [3]", True, "prompt 1: is no prompt"),
        ("others: 3", True, "no list of prompts"),
    ],
)
def test_what_cannot_be_asked_is_refused(content: str, has_labels: bool, words: str, tmp_path: Path):
    path = tmp_path / "prompts.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_templates(path, has_labels)
