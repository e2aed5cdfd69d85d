"""Packing: no token lost, none predicted across documents, packed rows say the same as padded ones."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmworks.data.batch import Example
from lmworks.data.packing import pack, pad


def document(length, first=0):
    ids = np.arange(first, first + length, dtype=np.int32)
    return Example(ids, ids % 3 != 1)


lengths = st.lists(st.integers(1, 12), min_size=1, max_size=15)


def predictions(batch):
    """(id, its target, its position) of every place that predicts something."""
    found = []
    for row in range(batch.ids.shape[0]):
        for place in range(batch.ids.shape[1]):
            if batch.weights[row, place]:
                column = batch.ids, batch.targets, batch.positions
                found.append(tuple(int(values[row, place]) for values in column))
    return sorted(found)


@given(lengths, st.integers(4, 20))
def test_rows_hold_whole_documents_within_their_room(sizes, room):
    documents = [document(size, 100 * number) for number, size in enumerate(sizes)]
    batches = pack(documents, room)
    assert sum(batch.tokens for batch in batches) == sum(sizes)
    seen = []
    for batch in batches:
        assert batch.ids.shape[0] == 1
        assert batch.tokens == batch.ids.shape[1]
        assert batch.tokens <= room or batch.segments.max() == 1
        for segment in range(1, int(batch.segments.max()) + 1):
            here = batch.segments[0] == segment
            ids = batch.ids[0][here].tolist()
            assert batch.positions[0][here].tolist() == list(range(len(ids)))
            assert batch.weights[0][here][-1] == 0
            seen.append(ids)
    assert sorted(seen) == [example.ids.tolist() for example in documents]
    assert len(batches) <= len(sizes)


@given(lengths, st.integers(4, 20))
def test_packed_predicts_what_padded_predicts(sizes, room):
    documents = [document(size, 100 * number) for number, size in enumerate(sizes)]
    packed = sorted(triple for batch in pack(documents, room) for triple in predictions(batch))
    for side in ("left", "right"):
        assert predictions(pad(documents, 7, side)) == packed
    expected = [
        (int(example.ids[place]), int(example.ids[place + 1]), place)
        for example in documents
        for place in range(len(example) - 1)
        if example.loss[place + 1]
    ]
    assert packed == sorted(expected)


def test_padding_stands_where_it_is_asked_for():
    batch = pad([document(3), document(1, 50)], pad_id=9, side="left")
    assert batch.ids.tolist() == [[0, 1, 2], [9, 9, 50]]
    assert batch.segments.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch.tokens == 4
    batch = pad([document(3), document(1, 50)], pad_id=9)
    assert batch.ids.tolist() == [[0, 1, 2], [50, 9, 9]]


def test_few_rows_are_needed():
    assert [batch.tokens for batch in pack([document(size) for size in (6, 4, 5, 5, 3, 7)], 10)] == [10, 10, 10]
