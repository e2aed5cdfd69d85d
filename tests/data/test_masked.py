"""Masked words and next sentences: rates, targets, words and labels against their definitions."""

import re
from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tasks import TEXTS, bert_like, characters, make_task, model, roberta_like, t5_like
from tokenizers import normalizers

from lmworks.base.errors import InputError
from lmworks.data.documents import encode_documents
from lmworks.data.examples import check_report
from lmworks.text import corpus
from lmworks.text.rows import DataSettings, Row

BERT, ROBERTA, SIGNS = bert_like(), roberta_like(), characters()
TOKENIZERS = {"bert": BERT, "roberta": ROBERTA, "characters": SIGNS}
ROWS = [{"text": text} for text in TEXTS]


def make(tokenizer, rows=ROWS, context=32, output=None, **settings):
    chosen = make_task("masked", tokenizer, output or model(), **settings)
    return chosen, chosen.examples(corpus.read(rows), DataSettings(), context)


def bounds(share, count):
    """Five standard deviations of a binomial share."""
    return 5 * (share * (1 - share) / count) ** 0.5


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("whole", [False, True])
def test_a_draw_hides_words_and_says_what_they_were(name, whole):
    tokenizer = TOKENIZERS[name]
    task, created = make(tokenizer, whole_words=whole)
    special = set(tokenizer.specials.values())
    rng = np.random.default_rng(1)
    for example in created:
        for _ in range(20):
            drawn = task.sample(example, rng)
            assert drawn.loss.any()
            assert not (drawn.loss & ~example.loss).any()
            assert (drawn.targets == example.ids).all()
            assert (drawn.ids[~drawn.loss] == example.ids[~drawn.loss]).all()
            assert not special & set(drawn.targets[drawn.loss].tolist())
            assert set(drawn.ids[drawn.loss].tolist()) & special <= {tokenizer.mask_id}
        assert example.ids[: len(tokenizer.opening)].tolist() == tokenizer.opening


def test_rates_are_fifteen_percent_and_80_10_10():
    task, created = make(BERT)
    rng = np.random.default_rng(2)
    hidden = could = masked = remaining = 0
    replaced: Counter[int] = Counter()
    for _ in range(400):
        for example in created:
            drawn = task.sample(example, rng)
            here = drawn.loss
            could, hidden = could + example.loss.sum(), hidden + here.sum()
            masked += (drawn.ids[here] == BERT.mask_id).sum()
            remaining += (drawn.ids[here] == drawn.targets[here]).sum()
            other = here & (drawn.ids != BERT.mask_id) & (drawn.ids != drawn.targets)
            replaced.update(drawn.ids[other].tolist())
    plain = len(task.masking.replacements)
    assert abs(hidden / could - 0.15) < bounds(0.15, could)
    assert abs(masked / hidden - 0.8) < bounds(0.8, hidden)
    assert abs(remaining / hidden - 0.1 - 0.1 / plain) < bounds(0.1, hidden)
    assert abs(replaced.total() / hidden - 0.1 * (1 - 1 / plain)) < bounds(0.1, hidden)
    assert set(replaced) == set(task.masking.replacements.tolist())
    assert max(replaced.values()) < 3 * replaced.total() / plain


def test_every_place_is_hidden_equally_often():
    task, created = make(BERT)
    rng = np.random.default_rng(3)
    (first, *_) = created
    count = 3000
    often = sum(task.sample(first, rng).loss.astype(int) for _ in range(count)) / count
    share = often[first.loss].mean()
    assert (abs(often[first.loss] - share) < bounds(share, count)).all()
    assert not often[~first.loss].any()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_whole_words_are_hidden_whole(name):
    tokenizer = TOKENIZERS[name]
    task, created = make(tokenizer, whole_words=True, mask_rate=0.3)
    rng = np.random.default_rng(4)
    several = 0
    for example in created:
        window = example.origin
        words = window.document.word_ids[window.begin : window.end]
        for _ in range(10):
            loss = task.sample(example, rng).loss[len(tokenizer.opening) :][: len(words)]
            for word in np.unique(words):
                assert loss[words == word].all() or not loss[words == word].any()
                several += int((words == word).sum() > 1 and loss[words == word].all())
    assert several > 10


@pytest.mark.parametrize("make_one", [bert_like, roberta_like, t5_like, characters])
def test_words_are_those_a_person_sees(make_one):
    text = TEXTS[1]
    (document,) = encode_documents([Row({"text": text})], make_one(), word_ids=True)
    ends = [*document.starts[1:], len(text)]
    spans = list(zip(document.starts, ends, document.word_ids, strict=True))
    seen = [
        "".join(text[low:high] for low, high, n in spans if n == word) for word in range(document.word_ids.max() + 1)
    ]
    parts = [word.strip() for word in seen if word.strip()]
    assert not any(sign.isspace() for word in parts for sign in word)
    if make_one in (bert_like, characters):  # no token of theirs holds letters and a stop
        assert parts == re.findall(r"\w+|[^\w\s]", text)
    words = {word for part in parts for word in re.findall(r"\w+", part)}
    assert words == set(re.findall(r"\w+", text))


def test_bytes_of_one_character_are_one_word():
    (document,) = encode_documents([Row({"text": "漢 字é"})], ROBERTA, word_ids=True)
    for low in np.unique(document.starts):
        assert len(set(document.word_ids[document.starts == low].tolist())) == 1


def test_texts_are_cut_into_stretches_and_nothing_is_lost():
    for tokenizer in TOKENIZERS.values():
        _, created = make(tokenizer, context=11)
        around = len(tokenizer.opening), len(tokenizer.closing)
        inner = [example.ids[around[0] : len(example) - around[1]].tolist() for example in created]
        assert all(len(example) <= 11 for example in created)
        assert list(chain(*inner)) == list(chain(*map(tokenizer.encode, TEXTS)))


def test_draws_follow_their_generator():
    for output in ({}, {"whole_words": True}, {"next_sentence": True}, {"windows": "random"}):
        task, created = make(BERT, **output)
        item, two, other = (
            [task.sample(example, np.random.default_rng(seed)).ids.tolist() for example in created]
            for seed in (5, 5, 6)
        )
        assert item == two != other


def test_random_windows_reach_every_offset_and_stay_put_when_measured():
    task, created = make(SIGNS, rows=ROWS[:1], context=8, windows="random")
    rng = np.random.default_rng(7)
    whole = SIGNS.encode(TEXTS[0])
    result = {tuple(task.sample(created[0], rng).targets.tolist()) for _ in range(2000)}
    assert result == {tuple(whole[begin : begin + 8]) for begin in range(len(whole) - 7)}
    assert all((task.sample_for_evaluation(example, rng).targets == example.ids).all() for example in created)


def test_special_tokens_of_the_text_and_unknown_ones_are_never_hidden():
    task, created = make(BERT, rows=[{"text": "The sky [SEP] is \u2603 blue"}], mask_rate=0.9)
    (example,) = created
    assert {BERT.unk_id, 3} <= set(example.ids[1:-1].tolist())
    for seed in range(50):
        drawn = task.sample(example, np.random.default_rng(seed))
        assert not set(drawn.targets[drawn.loss].tolist()) & set(BERT.specials.values())
    assert any("tokens are unknown" in note for note in created.report.notes)


# Next sentences

PAIRED = {"bert": BERT, "roberta": ROBERTA}


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]], ids=["documents", "one document"])
@pytest.mark.parametrize("context", [12, 40])
def test_pairs_follow_or_do_not_as_their_label_says(name, rows, context):
    tokenizer = PAIRED[name]
    task, created = make(tokenizer, rows=rows, context=context, next_sentence=True, whole_words=True)
    frame = task.frame
    labels: Counter[int] = Counter()
    rng = np.random.default_rng(8)
    for example in created:
        for _ in range(60):
            drawn = task.sample(example, rng)
            label = int(drawn.labels["next_sentence"].classes[0])
            labels[label] += 1
            first, second = drawn.origin.a, drawn.origin.b
            texts = [part.document.ids[part.begin : part.end].tolist() for part in (first, second)]
            opened = [*frame.opening, *texts[0], *frame.middle]
            assert drawn.targets.tolist() == [*opened, *texts[1], *frame.closing]
            assert len(drawn) <= context
            assert all(texts)
            assert drawn.types.tolist() == [0] * len(opened) + [1] * (len(drawn) - len(opened))
            follows = first.document is second.document and first.end == second.begin
            assert follows == (label == 0)
            assert len(rows) == 1 or (first.document is second.document) == (label == 0)
    total = labels.total()
    assert abs(labels[0] / total - 0.5) < bounds(0.5, total)
    assert any("one document" in note for note in created.report.notes) == (len(rows) == 1)


def test_all_sentences_stand_in_blocks():
    _, created = make(BERT, context=24, next_sentence=True)
    reached = {(example.place, place) for example in created
               for part in (example.origin.a, example.origin.b)
               for place in range(part.begin, part.end)}  # fmt: skip
    assert len(reached) == sum(len(BERT.encode(text)) for text in TEXTS)


def test_types_only_where_the_model_has_them():
    task, created = make(ROBERTA, output=model(type_vocab_size=1), next_sentence=True)
    assert created[0].types is None
    assert task.sample(created[0], np.random.default_rng(0)).types is None


@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(9, 30))
@settings(max_examples=40, deadline=None)
def test_any_sentences_make_pairs_that_fit(lengths, context):
    text = "".join("abc " * length + ".\n" for length in lengths)
    task, created = make(BERT, rows=[{"text": text}, ROWS[0]], context=context, next_sentence=True)
    for example in created:
        drawn = task.sample(example, np.random.default_rng(len(text)))
        assert len(drawn) <= context
        assert min(len(drawn.origin.a), len(drawn.origin.b)) > 0


# What is refused


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match="no mask token"):
        make(t5_like())
    with pytest.raises(InputError, match="no head next_sentence"):
        make(BERT, output=model(heads=()), next_sentence=True)
    with pytest.raises(InputError, match="nothing between two sentences"):
        make(SIGNS, next_sentence=True)
    with pytest.raises(InputError, match="no document has two sentences"):
        make(BERT, rows=[{"text": "the sky"}, {"text": "blue"}], next_sentence=True)
    with pytest.raises(InputError, match="no room for a text"):
        make(BERT, context=2)
    with pytest.raises(InputError, match="windows random does not go with next_sentence"):
        make(BERT, next_sentence=True, windows="random")


def test_short_and_empty_texts_give_notes():
    _, created = make(BERT, context=500)
    assert any("no text fills a context: there is room for 498 tokens" in note for note in created.report.notes)
    strips = bert_like()
    strips.core.normalizer = normalizers.BertNormalizer()
    _, created = make(strips, rows=[*ROWS, {"text": "\u200d\ufffd"}])
    assert (created.report.no_trainable, created.report.first_no_trainable) == (1, "row 4")
    with pytest.raises(InputError, match=r"row 4: 1 of 4 rows have no token to learn .their texts are empty"):
        check_report(created.report, DataSettings())
