"""What requests make of logits: penalties and biases by their formulas, masks, scores."""

from __future__ import annotations

import numpy as np

from lmworks.generate.sampling import Rules, SamplingSettings
from lmworks.serve.token_choice import ChoiceSettings, TokenChooser, score_tokens


def chooser(settings: ChoiceSettings, rules: Rules | None = None) -> TokenChooser:
    return TokenChooser(settings, rules or Rules(), {0}, np.random.default_rng(0), limit=9)


def greedy(logits, settings: ChoiceSettings, count: int, rules: Rules | None = None) -> list[int]:
    logits, own, tokens = np.array(logits, np.float32), chooser(settings, rules), list[int]()
    before = logits.copy()
    for new in range(count):
        tokens.append(own.choose(logits, [1, 2, *tokens], new, count - new))
    assert (logits == before).all()
    return tokens


def test_penalties_count_what_was_written_and_not_the_prompt():
    """Logits 3, 2.5, 1.2; after each token its logit falls by frequency, after its first one by presence too."""
    logits = [0.0, 3.0, 2.5, 1.2]
    assert greedy(logits, ChoiceSettings(SamplingSettings()), 3) == [1, 1, 1]
    assert greedy(logits, ChoiceSettings(SamplingSettings(), presence_penalty=1.0), 4) == [1, 2, 1, 1]
    # 3, 2.5 -> 2, 2.5 -> 2, 1.5 -> 1, 1.5 -> 1, 0.5, 1.2
    assert greedy(logits, ChoiceSettings(SamplingSettings(), frequency_penalty=1.0), 5) == [1, 2, 1, 2, 3]


def test_biases_are_added():
    settings = ChoiceSettings(SamplingSettings(), logit_bias={1: -100.0, 3: 1.4})
    assert greedy([0.0, 3.0, 2.5, 1.2], settings, 1) == [3]


def test_the_publisher_s_rules_hold():
    assert greedy([9.0, 3.0, 2.5, 1.2], ChoiceSettings(SamplingSettings()), 3, Rules(min_new_tokens=2)) == [1, 1, 0]


class Alternating:
    """Begins with 3, has even tokens and odd ones in turn, and 3 after each 2."""

    is_finished = is_shortened = False

    def __init__(self) -> None:
        self.taken: list[int] = []

    def begin(self, left: int) -> list[int]:
        self.taken = [3]
        return [3]

    def mask(self) -> np.ndarray:
        return np.arange(4) % 2 != self.taken[-1] % 2

    def accept(self, token: int, left: int) -> list[int]:
        if left <= 2:
            self.is_finished = self.is_shortened = True
            return [0]
        tokens = [2, 3] if token == 2 else [token]
        self.taken += tokens
        return tokens


def test_a_grammar_decides_what_may_come_and_what_must():
    own, logits = chooser(ChoiceSettings(SamplingSettings(), grammar=Alternating)), np.float32([0.0, 3.0, 2.5, 1.2])
    tokens = []
    while not own.is_finished:
        tokens.append(own.choose(logits, [1, *tokens], len(tokens), 9 - len(tokens)))
    assert tokens == [3, 2, 3, 2, 3, 2, 3, 0]
    assert own.is_shortened
    drawn = chooser(ChoiceSettings(SamplingSettings(temperature=2.0), grammar=Alternating))
    tokens = [drawn.choose(np.zeros(4, np.float32), [1], new, 9) for new in range(50)]
    assert [token % 2 for token in tokens] == [(new + 1) % 2 for new in range(50)]
    assert {*tokens} == {0, 1, 2, 3}


def test_scores_are_those_of_the_model_itself():
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]], np.float32)) + 5
    first, second = score_tokens(logits, [1, 0], 2)
    assert first.id == 1
    np.testing.assert_allclose(np.exp(first.log_probability), 0.2, rtol=1e-5)
    assert [token for token, _ in first.top] == [3, 2]
    np.testing.assert_allclose([np.exp(value) for _, value in second.top], [0.7, 0.1], rtol=1e-5)
    assert score_tokens(logits, [1, 0], 0)[0].top == []
