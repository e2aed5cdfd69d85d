"""Likelihoods by the native engine: those of the PyTorch path; what prompts share is computed once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_native_stepper import GEMMA, GPT2, ODD, network_in_blocks, network_of
from tiny_tokenizers import SENTENCES, byte_level

from lmworks.base.errors import InputError
from lmworks.evaluate import choices as network_choices
from lmworks.evaluate import native_likelihoods, scoring
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import BLOCK_KINDS, native_stepper
from lmworks.kernels.native_module import native_module
from lmworks.model.transformer import Transformer

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

BEGIN = list(range(40, 60))
PROMPTS = [[*BEGIN, 3, 4, 5], [*BEGIN, 3, 4, 9, 9], [1], [*BEGIN, 3, 4, 5], [*BEGIN, 7] * 2]
CHOICES = [[[5], [6, 7, 8]], [[1], [2], [3]], [[4, 4]], [[5], [6, 7, 8]], [[9, 8, 7, 6], [9, 8]]]


class CountingStepper(NativeStepper):
    """Remembers how many tokens the engine computed."""

    computed = 0

    def _compute(self, sequences: list[int], tokens: list[int], wanted: list[int]) -> np.ndarray:
        self.computed += len(tokens)
        return super()._compute(sequences, tokens, wanted)


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


def test_what_prompts_share_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of()
    whole = native_stepper(network)
    stepper = CountingStepper(whole._engine, 97, 96)
    native_likelihoods.choice_likelihoods(stepper, PROMPTS, CHOICES)
    # [1]; then the beginning and what follows it, of the same prompt again its last token
    read = 1 + (len(BEGIN) + 3) + 1 + 2 + (len(PROMPTS[4]) - len(BEGIN))
    following = sum(len(answer) - 1 for answers in CHOICES for answer in answers)
    assert stepper.computed == read + following
    expected = native_likelihoods.choice_likelihoods(whole, PROMPTS, CHOICES)
    monkeypatch.setattr(native_likelihoods, "EVALUATED_LOGITS", 2)
    parts = native_likelihoods.choice_likelihoods(whole, PROMPTS, CHOICES)
    for one, other in zip(expected, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_has_no_likelihood_is_refused() -> None:
    stepper = native_stepper(network_of())
    cases = (([], [[1]], "without tokens"), ([1], [[]], "without tokens"), ([1] * 96, [[1]], "97 tokens"))
    for prompt, answers, words in cases:
        with pytest.raises(InputError, match=words):
            native_likelihoods.choice_likelihoods(stepper, [prompt], [answers])
    assert native_likelihoods.choice_likelihoods(stepper, [], []) == []


def test_a_whole_context_is_scored() -> None:
    network = network_of()
    ids = torch.randint(0, 97, (96,), generator=torch.Generator().manual_seed(1)).tolist()
    (ours,) = native_likelihoods.choice_likelihoods(native_stepper(network), [ids[:1]], [[ids[1:]]])
    (theirs,) = network_choices.choice_likelihoods(network, [ids[:1]], [[ids[1:]]])
    np.testing.assert_allclose(ours, theirs, atol=1e-2)
