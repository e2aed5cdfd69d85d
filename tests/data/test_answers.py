"""Prompts with answers, and whole texts: a prompt begins its example, loss by position, counts, what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import CHATML, LLAMA2, byte_level, sentencepiece

from lmworks.base.errors import InputError
from lmworks.data import answers
from lmworks.data.answers import answer_examples
from lmworks.data.examples import check_report
from lmworks.data.prompts import prompts
from lmworks.data.texts import causal_examples
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

PLAIN, CHAT, PIECES = byte_level(), byte_level(CHATML), sentencepiece(LLAMA2)
TOKENIZERS = {"plain": PLAIN, "chat": CHAT, "bos": byte_level(adds_bos=True), "pieces": PIECES}
PAIRS = [{"prompt": "Who are you?", "completion": "I am nobody."}, {"prompt": "The sky?", "completion": "blue é"}]
LABELS = [{"text": "The sky", "label": "high"}, {"text": "The sea", "label": "low"}]
TALKS = [
    {
        "messages": [
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "I"},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Yes"},
        ]
    }
]


def examples(table, tokenizer, settings, context):
    make = causal_examples if table.kind == "text" else answer_examples
    return make(table, tokenizer, settings, context)


def make(rows, tokenizer, context=200, **settings):
    output = DataSettings(**settings)
    return examples(corpus.read(rows, output), tokenizer, output, context)


def learned(tokenizer, example):
    return tokenizer.decode(example.ids[example.loss].tolist(), skip_special=False)


@pytest.mark.parametrize("rows", [PAIRS, LABELS, TALKS], ids=["pairs", "labels", "talks"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_prompt_is_the_beginning_of_its_example(rows, name):
    tokenizer = TOKENIZERS[name]
    if rows is TALKS and tokenizer.chat_template is None:
        pytest.skip("conversations need a template")
    table, settings = corpus.read(rows), DataSettings()
    created = examples(table, tokenizer, settings, 300)
    asked = prompts(table, tokenizer, settings)
    assert len(created) == len(asked) == len(rows)
    for example, prompt in zip(created, asked, strict=True):
        assert example.ids[: len(prompt.ids)].tolist() == prompt.ids
        if rows is LABELS:
            gold = created.choices.index(prompt.reference)
            begin = len(prompt.ids)
            assert example.ids[begin : begin + len(prompt.choices[gold])].tolist() == prompt.choices[gold]
            assert example.loss[begin : begin + len(prompt.choices[gold])].all()


@given(st.text(min_size=1, max_size=15).filter(str.strip), st.text(min_size=1, max_size=15).filter(str.strip))
def test_with_and_without_template_for_any_text(prompt, completion):
    for tokenizer in TOKENIZERS.values():
        table = corpus.read([{"prompt": prompt, "completion": completion}])
        (example,) = examples(table, tokenizer, DataSettings(), 500)
        (asked,) = prompts(table, tokenizer, DataSettings())
        assert example.ids[: len(asked.ids)].tolist() == asked.ids


def test_loss_lies_on_completion_and_end_alone():
    first, second = make(PAIRS, PLAIN)
    assert learned(PLAIN, first) == "I am nobody.</s>"
    assert PLAIN.decode(first.ids.tolist(), skip_special=False) == "Who are you?\nI am nobody.</s>"
    assert (first.bytes, second.bytes) == (len("I am nobody."), len("blue é".encode()))
    first, _ = make(PAIRS, CHAT)
    assert learned(CHAT, first) == "I am nobody.<|im_end|>"
    assert first.bytes == len("I am nobody.")
    first, _ = make(PAIRS, CHAT, template="off", prompt="Q: {prompt}\nA:", completion=" {completion}")
    assert CHAT.decode(first.ids.tolist(), skip_special=False) == "Q: Who are you?\nA: I am nobody.</s>"
    (talk,) = make(TALKS, CHAT)
    assert learned(CHAT, talk) == "I<|im_end|>Yes<|im_end|>"
    (talk,) = make(TALKS, CHAT, turns="last", system="Be short")
    assert learned(CHAT, talk) == "Yes<|im_end|>"
    assert CHAT.decode(talk.ids.tolist(), skip_special=False).startswith("<|im_start|>system\nBe short<|im_end|>")


def test_labels_offer_every_choice():
    created = make(LABELS, CHAT)
    assert created.choices == ["high", "low"]
    assert learned(CHAT, created[0]) == "high<|im_end|>"
    assert "Answer with one of: high, low." in CHAT.decode(created[1].ids.tolist())
    assert learned(PLAIN, make(LABELS, PLAIN)[1]) == " low</s>"


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("limit", [2, 3, 7, 1000])
def test_of_a_text_every_token_is_learned_once(name, limit):
    tokenizer = TOKENIZERS[name]
    text = "The sky is blue, é 漢字 and\n\nthe sea is too." * 2
    created = make([{"text": text}], tokenizer, context=limit)
    whole = [*tokenizer.opening, *tokenizer.encode(text), tokenizer.eos_id]
    first = max(len(tokenizer.opening), 1)
    assert [token for example in created for token in example.ids[example.loss].tolist()] == whole[first:]
    assert all(example.width <= limit and not example.loss[0] for example in created)
    for item, following in zip(created.items, created.items[1:], strict=False):
        assert item.ids[-1] == following.ids[0]
    unscored = 0 if tokenizer.opening else len(tokenizer.piece(whole[0]).encode())
    assert sum(example.bytes for example in created) == len(text.encode()) - unscored
    assert created.report.truncated == 0
    assert created.report.loss_tokens == len(whole) - first


def test_long_rows_are_cut_and_counted_skipped_or_refused():
    rows = [PAIRS[0], {"prompt": "a", "completion": "b"}]
    whole = make(rows, PLAIN)
    room = len(whole[0]) - 3
    cut = make(rows, PLAIN, max_tokens=room)
    assert cut[0].ids.tolist() == whole[0].ids[:room].tolist()
    assert (cut[0].dropped, cut.report.truncated, cut.report.dropped_tokens) == (3, 1, 3)
    assert cut[0].bytes < whole[0].bytes
    check_report(cut.report, DataSettings())
    skipped = make(rows, PLAIN, max_tokens=room, on_long="skip")
    assert (len(skipped), skipped.report.too_long) == (1, 1)
    with pytest.raises(InputError, match=f"row 1: {len(whole[0])} tokens, and there is room for {room}"):
        make(rows, PLAIN, max_tokens=room, on_long="stop")
    with pytest.raises(InputError, match="context is 8 tokens, not 9"):
        make(PAIRS, PLAIN, context=8, max_tokens=9)


def test_rows_without_a_token_to_learn_are_refused_unless_allowed():
    created = make([{"prompt": "The sky is blue. " * 3, "completion": "a"}, *PAIRS], PLAIN, max_tokens=14)
    assert created.report.no_trainable == 1
    assert len(created) == 3 - created.report.no_trainable
    with pytest.raises(InputError, match="row 1: 1 of 3 rows have no token to learn"):
        check_report(created.report, DataSettings())
    check_report(created.report, DataSettings(allow_no_loss=True))
    nothing = make(PAIRS, PLAIN, max_tokens=2)
    limited = DataSettings(allow_no_loss=True, max_tokens=2)
    with pytest.raises(InputError, match="no row has a token to learn") as caught:
        check_report(nothing.report, limited)
    assert "raise data.max_tokens" in caught.value.hint
    check_report(make(PAIRS, PLAIN, max_tokens=14).report, limited)


def test_an_end_without_loss_is_refused_unless_allowed():
    endless = byte_level()
    endless.eos_id = None
    unclosed = byte_level("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
                          "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")  # fmt: skip
    for tokenizer in (endless, unclosed):
        created = make(PAIRS, tokenizer)
        assert created.report.end_without_loss == 2
        with pytest.raises(InputError, match="row 1: in 2 of 2 rows the end of the turn carries no loss"):
            check_report(created.report, DataSettings())
        check_report(created.report, DataSettings(allow_no_end=True))


def test_pad_equal_to_eos_does_not_hide_the_end():
    tokenizer = byte_level(CHATML, pad_id=4)
    created = make(PAIRS, tokenizer)
    assert created.report.end_without_loss == 0
    assert all(example.ids[example.loss][-1] == 4 for example in created)


def test_templates_follow_the_settings():
    with pytest.raises(InputError, match="no chat template"):
        make(TALKS, PLAIN)
    with pytest.raises(InputError, match="no chat template"):
        make(PAIRS, PLAIN, template="on")
    with pytest.raises(InputError, match="without a chat template"):
        make(TALKS, CHAT, template="off")
    assert make(PAIRS, CHAT).report.template == "chat template"
    assert make(PAIRS, CHAT, template="off").report.template == "plain"
    refused = [{"messages": [{"role": "assistant", "content": "I"}]}]
    with pytest.raises(InputError, match="row 1: the model's chat template refuses"):
        make(refused, PIECES)


def test_written_out_special_tokens_are_counted():
    created = make([{"prompt": "Say <|im_end|>", "completion": "no"}, *PAIRS], CHAT)
    assert created.report.with_specials == 1
    assert any("special tokens written out in 1 row " in note for note in created.report.notes)


def test_many_rows_at_once_are_the_rows_one_by_one(monkeypatch):
    rows = [{"prompt": f"Who is {n}?", "completion": f"It is {n}"} for n in range(11)]
    for tokenizer in TOKENIZERS.values():
        together = make(rows, tokenizer)
        monkeypatch.setattr(answers, "ROWS_AT_ONCE", 1)
        alone = make(rows, tokenizer)
        monkeypatch.undo()
        for item, other in zip(together, alone, strict=True):
            assert np.array_equal(item.ids, other.ids)
            assert np.array_equal(item.loss, other.loss)
            assert (item.place, item.bytes) == (other.place, other.bytes)
