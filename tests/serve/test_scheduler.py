"""Continuous batching, turn by turn: who is computed when, and that nobody's answer depends on it."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tiny_server import SPECIALS, Served, open_tiny, wait_until

from lmworks.generate.sampling import SamplingSettings
from lmworks.kernels.native_module import native_module
from lmworks.serve.prompt_parts import SMALLEST_LIMIT
from lmworks.serve.request import Finished, QueueFull, TimeLimit
from lmworks.serve.token_choice import ChoiceSettings
from lmworks.serve.worker import Worker

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

ENDLESS = dict.fromkeys(SPECIALS, -100.0)
SENTENCE = "The sky is blue, and the sea is too. Who are you? I am nobody; who are you? "


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory) -> Any:
    return open_tiny(tmp_path_factory.mktemp("model"))


def endless(**sampling: Any) -> ChoiceSettings:
    """Settings with which the model writes up to the limit."""
    return ChoiceSettings(SamplingSettings(**sampling), logit_bias=ENDLESS, top_log_probabilities=0)


def test_answers_are_those_of_each_prompt_alone(model):
    """Greedy and drawn, short and long, more than there are places, coming one after the other."""
    served = Served(model, parallel=3)
    prompts = [SENTENCE[begin : begin + 5 + 9 * begin] for begin in range(12)] + [SENTENCE * 2, SENTENCE * 2]
    asked = []
    for number, prompt in enumerate(prompts):
        asked.append(served.ask(prompt, limit=5 + number, temperature=0.9 * (number % 2)))
        served.scheduler.turn()
    served.finish()
    for number, (prompt, one) in enumerate(zip(prompts, asked, strict=True)):
        sampling = {"max_tokens": 5 + number, "temperature": 0.9 * (number % 2)}
        reply = model.generate(prompt, details=True, log_probabilities=True, raw=True, seed=0, slide=False, **sampling)
        assert one.text() == reply.text
        assert one.reason() == ("stop" if reply.stop_reason in ("end", "stop") else "length")
        written = reply.ids if reply.stop_reason != "end" else reply.ids[:-1]
        assert [score.id for score in one.scores()] == written
        expected = reply.log_probabilities[: len(written)]
        assert [score.log_probability for score in one.scores()] == expected


def test_several_answers_of_a_request_read_its_prompt_once(model):
    served = Served(model)
    prompt = served.model.text(SENTENCE * 3)
    asked = served.ask(prompt, prompt, prompt)
    served.finish()
    reused = [asked.of(Finished, index)[0].reused_tokens for index in range(3)]
    assert reused == [0, len(prompt) - 32, len(prompt) - 32]
    assert asked.text(0) == asked.text(1) == asked.text(2)


def test_a_long_prompt_delays_others_by_one_part_of_it_at_a_time(model):
    served = Served(model)
    writer = served.ask("The sky", limit=300, settings=endless())
    served.scheduler.turn()
    reader = served.ask(served.model.text(SENTENCE * 20)[:400], limit=3)
    (choice,), turns = reader.request.choices, 0
    while choice.new_tokens == 0:
        before = (writer.request.choices[0].new_tokens, choice.read)
        served.scheduler.turn()
        assert writer.request.choices[0].new_tokens == before[0] + 1
        assert choice.read - before[1] < 2 * SMALLEST_LIMIT
        turns += 1
    assert turns > 400 // (2 * SMALLEST_LIMIT)


def test_a_short_prompt_does_not_wait_for_a_long_one_to_be_read(model):
    served = Served(model)
    writer = served.ask("The sky", limit=300, settings=endless())
    served.scheduler.turn()
    long = served.ask(served.model.text(SENTENCE * 20)[:400], limit=3)
    served.scheduler.turn()
    short = served.ask("Who", limit=3)
    served.scheduler.turn()
    served.scheduler.turn()
    assert short.request.choices[0].new_tokens > 0
    assert long.request.choices[0].new_tokens == 0
    writer.request.cancel()


def test_places_go_to_who_has_the_fewest(model):
    served = Served(model, parallel=2)
    many = served.ask(*["The sky"] * 6, limit=20, settings=endless())
    served.scheduler.turn()
    single = served.ask("Who are you?", limit=5, settings=endless())
    served.finish()
    done = [len(many.of(Finished, index)) for index in range(6)]
    assert done == [1] * 6
    assert single.reason() == "length"
    began = sorted(choice.last_time for choice in many.request.choices)
    assert single.request.choices[0].last_time < began[2]


def test_a_client_with_many_requests_does_not_hold_up_one_with_a_single_request(model):
    """Whether there is one place, or several of which the client has all."""
    for parallel in (1, 4):
        served = Served(model, parallel=parallel)
        many = [served.ask("The sky", limit=8, settings=endless(), client="many") for _ in range(60)]
        served.scheduler.turn()
        single = served.ask("Who are you?", limit=8, settings=endless(), client="single")
        while not single.of(Finished, 0):
            assert served.scheduler.turn()
        assert sum(len(one.of(Finished, 0)) for one in many) <= 2 * parallel
        again = served.ask("Who are you?", limit=8, settings=endless(), client="single")
        while not again.of(Finished, 0):
            assert served.scheduler.turn()
        assert sum(len(one.of(Finished, 0)) for one in many) <= 4 * parallel
        served.finish()
        assert all(one.reason() == "length" for one in many)


def test_a_queue_that_one_client_filled_takes_another_one(model):
    served = Served(model, parallel=1, queue_size=2)
    many = [served.ask("The sky", limit=3, client="many") for _ in range(2)]
    with pytest.raises(QueueFull):
        served.ask("The sea", limit=3, client="many")
    single = served.ask("The sea", limit=3, settings=endless(), client="single")
    with pytest.raises(QueueFull):
        served.ask("The sea", limit=3, client="single")
    served.finish()
    assert single.reason() == "length"
    assert all(one.of(Finished, 0) for one in many)


def test_a_cancelled_request_frees_its_places_within_a_token(model):
    served = Served(model, parallel=2)
    gone = served.ask("The sky", "The sea", limit=400, settings=endless())
    served.scheduler.turn()
    waiting = served.ask("Who are you?", limit=4, settings=endless())
    for _ in range(3):
        served.scheduler.turn()
    assert (served.scheduler.running(), served.scheduler.waiting()) == (2, 1)
    gone.request.cancel()
    served.scheduler.turn()
    assert (served.scheduler.running(), served.scheduler.waiting()) == (1, 0)
    assert waiting.request.choices[0].new_tokens > 0
    served.finish()
    assert waiting.reason() == "length"
    assert not gone.of(Finished, 0)


def test_a_request_that_waits_is_cancelled_too(model):
    served = Served(model, parallel=1)
    served.ask("The sky", limit=3)
    gone = served.ask("The sea", limit=3)
    gone.request.cancel()
    served.finish()
    assert gone.events == []


def test_what_takes_too_long_fails(model):
    served = Served(model)
    late, other = served.ask("The sky", limit=9, time_limit=0.0), served.ask("The sea", limit=4, settings=endless())
    served.finish()
    assert isinstance(late.error, TimeLimit)
    assert other.reason() == "length"
    assert served.scheduler.running() == 0


def test_the_queue_is_bounded_and_says_when_to_come_again(model):
    served = Served(model, parallel=1, queue_size=2)
    served.ask("The sky", limit=50, settings=endless())
    served.scheduler.turn()
    served.ask("The sea", limit=3)
    served.ask("The sun", limit=3)
    with pytest.raises(QueueFull) as refused:
        served.ask("The moon", limit=3)
    assert 1 <= refused.value.retry_after <= 60
    served.finish()
    served.ask("The moon", limit=3)
    served.finish()


def test_stop_strings_and_limits_end_with_their_reasons(model):
    served = Served(model)
    whole = served.ask("The sky", limit=30, settings=endless())
    served.finish()
    text = whole.text()
    stop = next(pair for pair in map("".join, pairwise(text[5:])) if "\ufffd" not in pair)
    stopped = served.ask("The sky", limit=30, settings=endless(stop=[stop]))
    served.finish()
    assert stopped.text() == text.split(stop)[0]
    assert (whole.reason(), stopped.reason()) == ("length", "stop")
    ended = served.ask("The sky", limit=30, settings=ChoiceSettings(SamplingSettings(), logit_bias={2: 100.0}))
    served.finish()
    assert (ended.text(), ended.reason()) == ("", "stop")
    assert ended.of(Finished, 0)[0].completion_tokens == 1


def test_a_full_context_ends_an_answer(model):
    served = Served(model)
    prompt = served.model.text(SENTENCE * 30)[:505]
    asked = served.ask(prompt, limit=30, settings=endless())
    served.finish()
    assert asked.reason() == "length"
    assert asked.of(Finished, 0)[0].completion_tokens == 512 - 505


class Digits:
    """A grammar of four digits, the first of them 7.

    Args:
        tokens: the ids of the digits.
        size: V.
    """

    is_shortened = False

    def __init__(self, tokens: list[int], size: int) -> None:
        self._tokens, self._mask, self._left = tokens, np.zeros(size, bool), 3
        self._mask[tokens] = True

    @property
    def is_finished(self) -> bool:
        return self._left == 0

    def begin(self, left: int) -> list[int]:
        return [self._tokens[7]]

    def mask(self) -> np.ndarray:
        return self._mask

    def accept(self, token: int, left: int) -> list[int]:
        assert self._mask[token]
        self._left -= 1
        return [token]


class Faulty(Digits):
    """A grammar that cannot be asked."""

    def mask(self) -> np.ndarray:
        raise ValueError("no mask")


def test_a_grammar_decides_what_is_written_and_a_faulty_one_ends_its_request_alone(model):
    served = Served(model)
    size = served.scheduler.backend.vocab_size
    digits = [served.model.text(digit)[-1] for digit in "0123456789"]
    settings = [
        ChoiceSettings(SamplingSettings(temperature=1.5), grammar=lambda kind=kind: kind(digits, size))
        for kind in (Digits, Faulty)
    ]
    good, bad = (served.ask("How many?", limit=50, settings=own) for own in settings)
    served.finish()
    assert re.fullmatch("7[0-9]{3}", good.text())
    assert good.reason() == "stop"
    assert isinstance(bad.error, ValueError)
    assert served.scheduler.running() == 0


def test_a_backend_that_fails_ends_its_requests_and_not_the_thread(model, monkeypatch):
    served = Served(model)
    backend = served.scheduler.backend
    worker = Worker([served.scheduler])
    worker.start()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(backend, "vocab_size", 7)  # logits of another size: the engine refuses them
            lost = served.ask([11, 12, 13], limit=4)
            wait_until(lambda: lost.error is not None)
        assert "sizes do not agree" in str(lost.error)
        found = served.ask("The sky", limit=4, settings=endless())
        wait_until(lambda: found.of(Finished, 0))
        assert worker.is_alive()
    finally:
        worker.stop()
