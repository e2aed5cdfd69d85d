"""Packing: no token lost, none predicted across documents, packed rows say the same as padded ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmworks.data.batch import Example, Labels
from lmworks.data.packing import filled_length, pack, pad


def document(length, first=0):
    ids = np.arange(first, first + length, dtype=np.int32)
    return Example(ids, ids % 3 != 1)


lengths = st.lists(st.integers(1, 12), min_size=1, max_size=15)


def predictions(batch):
    """(id, its target, its position) of every place that predicts something."""
    result = []
    for row in range(batch.ids.shape[0]):
        for place in range(batch.ids.shape[1]):
            if batch.weights[row, place]:
                column = batch.ids, batch.targets, batch.positions
                result.append(tuple(int(values[row, place]) for values in column))
    return sorted(result)


@given(lengths, st.integers(4, 20))
def test_rows_hold_whole_documents_within_their_room(sizes, room):
    documents = [document(size, 100 * number) for number, size in enumerate(sizes)]
    batches = pack(documents, room)
    assert sum(batch.tokens for batch in batches) == sum(example.width for example in documents)
    seen = []
    for batch in batches:
        assert batch.ids.shape[0] == 1
        assert batch.tokens == batch.ids.shape[1]
        assert batch.tokens <= room or batch.segments.max() == 1
        for segment in range(1, int(batch.segments.max()) + 1):
            here = batch.segments[0] == segment
            ids = batch.ids[0][here].tolist()
            assert batch.positions[0][here].tolist() == list(range(len(ids)))
            seen.append(ids)
    # nothing is predicted from the last token of a text, so it does not pass through
    assert sorted(seen) == [example.ids[: max(1, len(example) - 1)].tolist() for example in documents]
    assert len(batches) <= len(sizes)


@given(lengths, st.integers(4, 20))
def test_packed_predicts_what_padded_predicts(sizes, room):
    documents = [document(size, 100 * number) for number, size in enumerate(sizes)]
    packed = sorted(triple for batch in pack(documents, room) for triple in predictions(batch))
    assert predictions(pad(documents, 7)) == packed
    expected = [
        (int(example.ids[place]), int(example.ids[place + 1]), place)
        for example in documents
        for place in range(len(example) - 1)
        if example.loss[place + 1]
    ]
    assert packed == sorted(expected)


def test_padding_is_on_the_right():
    batch = pad([document(4), document(2, 50)], pad_id=9)
    assert batch.ids.tolist() == [[0, 1, 2], [50, 9, 9]]
    assert batch.segments.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.tokens == 4


def test_few_rows_are_needed():
    assert [batch.tokens for batch in pack([document(size) for size in (7, 5, 6, 6, 4, 8)], 10)] == [10, 10, 10]


# Sources, types, labels, targets in their place


def rich(size, source, first=0, label=None, seed=0):
    """A document with targets of its own (where there is no source), types and the label of a head."""
    rng = np.random.default_rng(seed)
    ids = np.arange(first, first + size, dtype=np.int32)
    return Example(
        ids,
        rng.random(size) < 0.5,
        targets=None if source else ids + 1000,
        source=np.arange(first + 500, first + 500 + source, dtype=np.int32) if source else None,
        types=(np.arange(size) > size // 2).astype(np.int32),
        labels={} if label is None else {"topic": Labels.of_text(label)},
    )


def documents_of(batch):
    """All that a batch says of each document, in order of their first ids."""
    result = []
    for row in range(batch.ids.shape[0]):
        for segment in range(1, int(batch.segments[row].max()) + 1):
            here = batch.segments[row] == segment
            output = [
                values[row][here].tolist() for values in (batch.ids, batch.targets, batch.weights, batch.positions)
            ]
            output.append(batch.types[row][here].tolist())
            if batch.source is not None:
                there = batch.source.segments[row] == segment
                output += [batch.source.ids[row][there].tolist(), batch.source.positions[row][there].tolist()]
            for labels in batch.labels.values():
                first = row * batch.ids.shape[1] + int(here.nonzero()[0])
                output.append(int(labels.classes[labels.places.tolist().index(first)]))
            result.append(output)
    return sorted(result)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=10), st.integers(4, 30))
def test_packed_says_of_every_kind_what_padded_says(sizes, room):
    for with_source in (True, False):
        documents = [
            rich(size, source * with_source, 20 * number, None if with_source else number % 2, number)
            for number, (size, source) in enumerate(sizes)
        ]
        batches = pack(documents, room)
        packed = sorted(output for batch in batches for output in documents_of(batch))
        assert documents_of(pad(documents, 7)) == packed
        for batch in batches:
            count = int(batch.segments.max())
            sources = batch.source.ids.shape[1] if with_source else 0
            assert batch.tokens == batch.ids.shape[1] + sources
            assert batch.tokens <= room or count == 1
            if with_source:
                assert batch.source.segments[0].unique().tolist() == list(range(1, count + 1))
        assert sum(batch.tokens for batch in batches) == sum(example.size for example in documents)


def test_targets_of_an_example_stand_in_their_place():
    example = rich(6, 0, seed=3)
    (batch,) = pack([example, rich(3, 0, 50)], 20)
    assert batch.targets[0, :6].tolist() == example.targets.tolist()
    assert batch.weights[0, :6].tolist() == example.loss.astype(float).tolist()
    assert example.num_targets == example.loss.sum()


def test_documents_of_one_length_stay_in_their_order():
    documents = [rich(5, 3, 10 * number) for number in range(6)]
    (batch,) = pack(documents, 100)
    assert batch.ids[0].tolist() == [token for example in documents for token in example.ids[:-1].tolist()]
    assert batch.source.ids[0].tolist() == [token for example in documents for token in example.source.tolist()]


def test_examples_with_and_without_source_are_not_mixed():
    with pytest.raises(ValueError, match="cannot stand in one batch"):
        pack([rich(3, 2), rich(3, 0)], 20)


def test_documents_with_and_without_types_or_labels_in_one_row():
    (batch,) = pack([document(4), rich(3, 0, 50, label=1)], 20)
    assert batch.types[0].tolist() == [0, 0, 0, 0, 0, 1]
    topic = batch.labels["topic"]
    assert (topic.places.tolist(), topic.classes.tolist(), topic.weight) == ([3], [1], 1)
    assert batch.document_of(batch.labels["topic"].places).tolist() == [1]
    assert pack([document(4)], 20)[0].labels == {}


def test_labels_stand_at_any_tokens_that_pass_through_the_network():
    tags = Labels.of_tokens(np.array([0, 2]), np.array([4, 5]))
    first, second = (replace(rich(size, 0, 50, seed=size), labels={"tag": tags}) for size in (3, 4))
    (batch,) = pack([first, second], 20)
    joined = batch.labels["tag"]
    assert (joined.places.tolist(), joined.classes.tolist(), joined.weight) == ([0, 2, 3, 5], [4, 5, 4, 5], 4)
    assert pad([first, second], 0).labels["tag"].places.tolist() == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="head tag stands at a token that does not pass"):
        pack([replace(document(3), labels={"tag": tags})], 20)


@pytest.mark.parametrize(("tokens", "expected"), [(1, 16), (16, 16), (17, 32), (422, 432), (1000, 1008), (2049, 2112)])
def test_rows_are_filled_up_to_few_lengths(tokens, expected):
    assert filled_length(tokens) == expected
    assert len({filled_length(count) for count in range(1025, 2049)}) == 32


def test_tokens_that_the_network_puts_before_each_document_count_in_a_row():
    documents = [document(size) for size in (7, 5, 6, 6, 4, 8)]
    rows = pack(documents, 25, fill=True, virtual=5)
    for batch in rows:
        count = int(batch.segments.max())
        assert batch.tokens + 5 * count <= 25
        assert batch.ids.shape[1] + 5 * count == filled_length(batch.tokens + 5 * count)
    assert sum(batch.tokens for batch in rows) == sum(batch.tokens for batch in pack(documents, 25))


def test_what_a_row_is_filled_up_with_is_padding_without_loss():
    documents = [document(13), document(8)]
    (plain,), (filled,) = (pack(documents, 64, fill=fill) for fill in (False, True))
    width = plain.ids.shape[1]
    assert filled.ids.shape == (1, filled_length(width))
    assert filled.tokens == plain.tokens
    for name in ("ids", "targets", "weights", "positions", "segments"):
        whole = getattr(filled, name)
        assert torch.equal(whole[:, :width], getattr(plain, name))
        assert width < whole.shape[1]
        assert not whole[:, width:].any()
