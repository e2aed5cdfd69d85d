"""Likelihoods by the native engine: those of the PyTorch path; what prompts share is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from test_native_stepper import GEMMA, GPT2, ODD, network_in_blocks, network_of
from tiny_tokenizers import SENTENCES, byte_level

from lmworks.base.errors import InputError
from lmworks.evaluate import choices as network_choices
from lmworks.evaluate import native_likelihoods, scoring
from lmworks.evaluate.text_windows import ChoiceScores
from lmworks.generate.engine_sequences import EngineSequences
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import BLOCK_KINDS, native_stepper
from lmworks.generate.stepper import RowStart
from lmworks.kernels.native_module import native_module
from lmworks.model.transformer import Transformer

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

BEGIN = list(range(40, 80))
PROMPTS = [[*BEGIN, 3, 4, 5], [*BEGIN, 3, 4, 9, 9], [1], [*BEGIN, 3, 4, 5], [*BEGIN, 7] * 2]
CHOICES = [[[5], [6, 7, 8]], [[1], [2], [3]], [[4, 4]], [[5], [6, 7, 8]], [[9, 8, 7, 6], [9, 8]]]


class CountingSequences(EngineSequences):
    """Remembers how many tokens the engine computed, and in how many calls."""

    computed = calls = 0

    def append(self, numbers: Sequence[int], tokens: Sequence[int], wanted: Sequence[int]) -> np.ndarray:
        self.computed += len(tokens)
        self.calls += 1
        return super().append(numbers, tokens, wanted)


def both(network: Transformer) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Likelihoods of the choices by the engine, and by PyTorch."""
    ours = native_likelihoods.choice_likelihoods(native_stepper(network), PROMPTS, CHOICES)
    return ours, network_choices.choice_likelihoods(network, PROMPTS, CHOICES)


@pytest.mark.parametrize("changes", [{}, GPT2, GEMMA, ODD], ids=["llama", "gpt2", "gemma", "odd"])
@pytest.mark.parametrize("bos", [True, False])
def test_scores_are_those_of_the_network(changes: dict, bos: bool) -> None:
    tokenizer = byte_level(adds_bos=bos)
    network = network_of(**{**changes, "vocab_size": tokenizer.vocab_size})
    texts = [*SENTENCES, "", "é", "a", "".join(chr(97 + (7 * n * n) % 26) for n in range(300))]  # the last in windows
    ours = native_likelihoods.score_texts(native_stepper(network), tokenizer, texts)
    theirs = scoring.score_texts(network, tokenizer, texts)
    assert [(score.tokens, score.bytes) for score in ours] == [(score.tokens, score.bytes) for score in theirs]
    for score, wanted in zip(ours, theirs, strict=True):
        assert score.nats == pytest.approx(wanted.nats, abs=1e-3 * max(1, score.tokens))


@pytest.mark.parametrize("changes", [{}, GPT2, GEMMA, ODD], ids=["llama", "gpt2", "gemma", "odd"])
def test_choices_are_as_likely_as_to_the_network(changes: dict) -> None:
    for ours, theirs in zip(*both(network_of(**changes)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("kind", list(BLOCK_KINDS))
def test_quantized_weights_give_nearly_the_same(kind: str) -> None:
    network = network_in_blocks(kind)
    for ours, theirs in zip(*both(network), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=0.05)  # of logits of some tens


def test_what_prompts_share_is_computed_once_and_prompts_side_by_side() -> None:
    stepper = native_stepper(network_of())
    stepper.sequences = counting = CountingSequences(stepper.sequences._engine, 97, 96)
    native_likelihoods.choice_scores(stepper, PROMPTS, CHOICES)
    # [1]; what three begin with, and what follows it: of two that are the same their last token
    read = 1 + (len(BEGIN) + 2) + 1 + 1 + 2 + (len(PROMPTS[4]) - len(BEGIN))
    following = sum(len(answer) - 1 for answers in CHOICES for answer in answers)
    assert counting.computed == read + following
    longest = len(PROMPTS[4]) - len(BEGIN) + sum(len(answer) - 1 for answer in CHOICES[4])
    assert counting.calls == 1 + longest  # the beginning; then a token of each


@pytest.mark.parametrize(
    "changes",
    [
        {"MOST_PAIRS": 0, "EVALUATED_LOGITS": 2},
        {"MOST_PAIRS": 200},
        {"MOST_ROWS": 2},
        {"CACHE_BYTES": 0},
        {"SHARED": 1},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_in_whatever_parts_the_scores_are_the_same(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = native_stepper(network_of())
    expected = native_likelihoods.choice_scores(stepper, PROMPTS, CHOICES)
    for name, value in changes.items():
        monkeypatch.setattr(native_likelihoods, name, value)
    for one, other in zip(expected, native_likelihoods.choice_scores(stepper, PROMPTS, CHOICES), strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4)
        assert (one.is_greedy == other.is_greedy).all()


def test_a_choice_is_greedy_where_decoding_would_write_it() -> None:
    network = network_of()
    stepper, prompts = native_stepper(network), [PROMPTS[0], PROMPTS[4]]
    written = [list(step) for step in zip(*written_after(stepper, prompts, 5), strict=True)]
    choices = [[own, own[:1], [*own[:-1], (own[-1] + 1) % 97], [(own[0] + 1) % 97, *own[1:]]] for own in written]
    by_engine = native_likelihoods.choice_scores(stepper, prompts, choices)
    for scores in (by_engine, flat_and_cached(network, prompts, choices)):
        assert [own.is_greedy.tolist() for own in scores] == [[True, True, False, False]] * 2


def written_after(stepper: NativeStepper, prompts: list[list[int]], count: int) -> Iterator[list[int]]:
    """The likeliest tokens after prompts, step by step."""
    stepper.prefill([RowStart(prompt) for prompt in prompts])
    for _ in range(count):
        tokens = stepper.logits.argmax(1).tolist()
        yield tokens
        stepper.step(tokens)


def flat_and_cached(network: Transformer, prompts: list, choices: list) -> list[ChoiceScores]:
    """Scores by the network from caches, which are those of whole rows."""
    cached = network_choices.choice_scores(network, prompts, choices)
    for own, flat in zip(cached, network_choices._flat_scores(network, prompts, choices, 1024), strict=True):
        np.testing.assert_allclose(own.log_probabilities, flat.log_probabilities, atol=1e-3)
        assert (own.is_greedy == flat.is_greedy).all()
    return cached


def test_rows_of_the_stepper_stay() -> None:
    stepper, fresh = (native_stepper(network_of()) for _ in range(2))
    for own in (stepper, fresh):
        own.prefill([RowStart([1, 2, 3])])
    native_likelihoods.choice_scores(stepper, PROMPTS, CHOICES)
    assert len(stepper.sequences.lengths) == 1
    for own in (stepper, fresh):
        own.step([4])
    assert (stepper.logits == fresh.logits).all()


def test_what_has_no_likelihood_is_refused() -> None:
    stepper = native_stepper(network_of())
    cases = (([], [[1]], "without tokens"), ([1], [[]], "without tokens"), ([1] * 97, [[1]], "98 tokens"))
    for prompt, answers, words in cases:
        with pytest.raises(InputError, match=words):
            native_likelihoods.choice_likelihoods(stepper, [prompt], [answers])
    assert native_likelihoods.choice_likelihoods(stepper, [], []) == []


def test_a_whole_context_is_scored() -> None:
    network = network_of()
    ids = torch.randint(0, 97, (97,), generator=torch.Generator().manual_seed(1)).tolist()
    (ours,) = native_likelihoods.choice_likelihoods(native_stepper(network), [ids[:1]], [[ids[1:]]])
    (theirs,) = network_choices.choice_likelihoods(network, [ids[:1]], [[ids[1:]]])
    np.testing.assert_allclose(ours, theirs, atol=1e-2)
