"""Requests about texts: a few texts of each in turn, clients one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lmworks.serve.request import Event, QueueFull, Results, TextRequest
from lmworks.serve.text_queue import GROUP_TOKENS, TextQueue


def lengths(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def queue_of(size: int = 100) -> TextQueue:
    """One text is computed in each turn."""
    return TextQueue(lengths, lambda text: GROUP_TOKENS, size)


def ask(queue: TextQueue, texts: list[str], client: str) -> list[Event]:
    events: list[Event] = []
    queue.submit(TextRequest(events.append, 1000.0, texts, client))
    return events


def test_a_client_with_many_requests_does_not_hold_up_one_with_a_single_request():
    queue = queue_of()
    many = [ask(queue, ["a", "ab", "abc"], "many") for _ in range(60)]
    assert queue.turn()
    single = ask(queue, ["abcd", "ab"], "single")
    for _ in range(4):
        assert queue.turn()
    assert single == [Results([4, 2])]
    while queue.turn():
        pass
    assert many == [[Results([1, 2, 3])]] * 60


def test_requests_of_one_client_take_turns():
    queue = queue_of()
    long, short = ask(queue, ["a"] * 9, "one"), ask(queue, ["ab"], "one")
    assert queue.turn()
    assert queue.turn()
    assert (long, short) == ([], [Results([2])])


def test_a_queue_that_one_client_filled_takes_another_one():
    queue = queue_of(2)
    ask(queue, ["a"], "many")
    ask(queue, ["a"], "many")
    with pytest.raises(QueueFull):
        ask(queue, ["a"], "many")
    single = ask(queue, ["ab"], "single")
    while queue.turn():
        pass
    assert single == [Results([2])]
