"""Span corruption and denoising: lengths as T5's arithmetic has them, nothing lost, rates and spans as defined."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tasks import TEXTS, bert_like, make_task, model, roberta_like, t5_like

from lmworks.base.errors import InputError
from lmworks.data import spans
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

T5, BART = t5_like(), roberta_like()
ROWS = [{"text": text} for text in TEXTS]
ENCODER_DECODER = model("encoder-decoder")
rates = st.floats(0.02, 0.9)
means = st.floats(1.0, 10.0)


def make(name, tokenizer, rows=ROWS, context=24, **output):
    task = make_task(name, tokenizer, ENCODER_DECODER, **output)
    return task, task.examples(corpus.read(rows), DataSettings(), context)


def mended(source, target, sentinels, end):
    """The text again: each sentinel of the source replaced by what the target says after it."""
    assert source[-1] == target[-1] == end
    messages, current = {}, None
    for token in target[:-1]:
        if token in sentinels:
            current = token
            messages[current] = []
        else:
            messages[current].append(token)
    assert all(messages.values())
    assert [token for token in source if token in sentinels] == list(messages)
    return list(chain(*(messages.get(token, [token]) for token in source[:-1])))


# Span corruption


def test_lengths_are_those_that_t5_was_trained_with():
    """512 tokens of source at 15 % and spans of 3: 568 of text, 114 of target (Raffel et al.'s own figures)."""
    assert spans.text_length(512, 0.15, 3.0) == 568
    assert spans.corrupted_lengths(568, 0.15, 3.0) == (512, 114)


@given(st.integers(3, 1500), rates, means)
@settings(deadline=None)
def test_a_text_is_as_long_as_its_source_allows(source, rate, mean):
    length = spans.text_length(source, rate, mean)
    assert spans.corrupted_lengths(length, rate, mean)[0] <= source < spans.corrupted_lengths(length + 1, rate, mean)[0]


@given(st.integers(2, 300), rates, means, st.integers(0, 9))
@settings(deadline=None)
def test_source_and_target_are_the_text_and_as_long_as_computed(length, rate, mean, seed):
    ids = np.arange(length, dtype=np.int32)
    sentinels = np.arange(10_000, 10_400, dtype=np.int32)
    begins, ends = spans.noise_spans(length, rate, mean, np.random.default_rng(seed))
    noise, count = spans.noise_counts(length, rate, mean)
    assert (len(begins), (ends - begins).sum()) == (count, noise)
    assert begins[0] >= 0
    assert (begins[1:] > ends[:-1]).all()
    assert ends[-1] <= length
    source, target = spans.corrupt(ids, begins, ends, sentinels, 20_000)
    assert (len(source), len(target)) == spans.corrupted_lengths(length, rate, mean)
    assert mended(source.tolist(), target.tolist(), set(sentinels.tolist()), 20_000) == ids.tolist()


def test_every_place_but_the_edges_is_hidden_alike():
    rng, count, length = np.random.default_rng(0), 3000, 60
    often = np.zeros(length)
    lengths = []
    for _ in range(count):
        begins, ends = spans.noise_spans(length, 0.15, 3.0, rng)
        lengths += (ends - begins).tolist()
        for low, high in zip(begins, ends, strict=True):
            often[low:high] += 1
    assert often.sum() == 9 * count
    assert np.mean(lengths) == 3.0
    inner = often[8:-8] / count
    assert abs(inner - inner.mean()).max() < 5 * (0.15 * 0.85 / count) ** 0.5
    assert often.min() > 0


def test_of_a_short_text_any_part_is_hidden():
    rng = np.random.default_rng(0)
    result = {tuple(int(edge[0]) for edge in spans.noise_spans(10, 0.15, 3.0, rng)) for _ in range(300)}
    assert result == {(begin, begin + 2) for begin in range(9)}


def test_examples_fill_the_source_and_mend_to_the_text():
    task, created = make("spans", T5, rows=[{"text": " ".join(TEXTS)}, *ROWS], context=20)
    sentinels = set(task.sentinels.tolist())
    for example in created:
        for seed in range(5):
            drawn = task.sample(example, np.random.default_rng(seed))
            window = example.origin
            text = window.document.ids[window.begin : window.end].tolist()
            assert mended(drawn.source.tolist(), drawn.ids[1:].tolist(), sentinels, T5.eos_id) == text
            assert drawn.ids[0] == T5.pad_id
            assert drawn.loss.tolist() == [False] + [True] * (len(drawn) - 1)
    size = spans.text_length(20, 0.15, 3.0)
    full = [example for example in created if example.origin.end - example.origin.begin == size]
    assert len(full) > 3
    assert {len(example.source) for example in full} == {20}
    assert len({len(example) for example in full}) == 1


def test_first_sentinel_is_extra_id_0_and_others_follow():
    task, created = make("spans", T5)
    drawn = task.sample(created[0], np.random.default_rng(0))
    result = [T5.core.id_to_token(token) for token in drawn.source if token in set(task.sentinels.tolist())]
    assert result == [f"<extra_id_{number}>" for number in range(len(result))]
    assert drawn.ids[1] == T5.core.token_to_id("<extra_id_0>")


@pytest.mark.parametrize(("name", "tokenizer"), [("spans", T5), ("denoising", BART)])
def test_draws_follow_their_generator_and_windows_move_only_when_asked(name, tokenizer):
    task, created = make(name, tokenizer)
    item, two, other = (
        [task.sample(example, np.random.default_rng(seed)).source.tolist() for example in created] for seed in (5, 5, 6)
    )
    assert item == two != other
    moving, created = make(name, tokenizer, windows="random")
    rng = np.random.default_rng(1)
    result = {moving.sample(created[0], rng).origin.begin for _ in range(600)}
    assert result == set(range(len(created[0].origin.document) - (created[0].origin.end - created[0].origin.begin) + 1))
    assert all(moving.sample_for_evaluation(example, rng).origin == example.origin for example in created)


# Denoising


@given(st.integers(1, 200), st.floats(0.05, 0.95), means, st.integers(0, 5))
@settings(deadline=None)
def test_infilling_hides_spans_behind_single_masks(length, rate, mean, seed):
    ids = np.arange(1, length + 1, dtype=np.int32)
    created = spans.infill(ids, rate, mean, 0, np.random.default_rng(seed))
    remaining = created[created != 0]
    assert (np.diff(remaining) > 0).all()
    assert set(remaining.tolist()) <= set(ids.tolist())
    assert abs(length - len(remaining) - rate * length) < 1
    assert len(created) <= length
    assert not ((created[1:] == 0) & (created[:-1] == 0)).any()
    last, behind_mask = 0, False
    for token in [*created.tolist(), length + 1]:  # wherever tokens are missing a mask stands
        assert token in (0, last + 1) or behind_mask
        last, behind_mask = (last, True) if token == 0 else (token, False)


def test_spans_are_poisson_and_rate_is_exact_in_the_mean():
    rng, length, count = np.random.default_rng(1), 400, 300
    hidden, lengths = 0, []
    for _ in range(count):
        created = spans.infill(np.arange(1, length + 1, dtype=np.int32), 0.3, 3.0, 0, rng)
        remaining = [0, *created[created != 0].tolist(), length + 1]
        hidden += length + 2 - len(remaining)
        lengths += [gap - 1 for gap in np.diff(remaining) if gap > 1]
        zeros = (created == 0).sum() - (np.diff(remaining) > 1).sum()
        lengths += [0] * int(zeros)
    assert hidden == count * length * 0.3
    assert abs(np.mean(lengths) - 3.0) < 0.1
    assert abs(np.mean(np.array(lengths) == 0) - np.exp(-3)) < 0.01


def test_denoising_targets_are_the_original():
    task, created = make("denoising", BART, context=64)
    for example, text in zip(created, TEXTS, strict=False):
        drawn = task.sample(example, np.random.default_rng(3))
        start, opening, *body, closing = drawn.ids.tolist()
        assert (start, opening, closing) == (BART.eos_id, BART.bos_id, BART.eos_id)
        assert body == BART.encode(text)[: len(body)]
        assert drawn.source[0] == opening
        assert drawn.source[-1] == closing
        assert BART.mask_id in drawn.source
        assert len(drawn.source) <= len(drawn) <= 64
    whole = [
        token for example in created for token in task.sample(example, np.random.default_rng(0)).ids[2:-1].tolist()
    ]
    assert whole == list(chain(*map(BART.encode, TEXTS)))


def test_sentences_change_places_and_stay_whole():
    task, created = make("denoising", BART, context=200, mask_rate=1e-9)
    orders = set()
    for seed in range(250):
        drawn = task.sample(created[1], np.random.default_rng(seed))
        text = BART.decode(drawn.source.tolist())
        assert sorted(text) == sorted(TEXTS[1])
        for sentence in ("A cat climbed the tree.", "It was trying to catch a bird.", "The tree is old, isn't it?"):
            assert sentence in text
        orders.add(text)
    assert len(orders) == 24
    still, created = make("denoising", BART, context=200, mask_rate=1e-9, permute_sentences=False)
    assert BART.decode(still.sample(created[1], np.random.default_rng(0)).source.tolist()) == TEXTS[1]


# What is refused


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match=r"no sentinels .* needs 1"):
        make("spans", bert_like())
    with pytest.raises(InputError, match=r"only 2 sentinels.* needs 28"):
        make("spans", t5_like(2), context=500)
    with pytest.raises(InputError, match="no mask token"):
        make("denoising", T5)
    with pytest.raises(InputError, match="holds no corrupted text"):
        make("spans", T5, context=2)
    headless = t5_like()
    headless.pad_id = None
    with pytest.raises(InputError, match=r"no pad token for a decoder .*\n.*take another one .decoder_start eos"):
        make("spans", headless)
    assert make("spans", headless, decoder_start="eos")[0].start == headless.eos_id
