"""What texts share at their beginning is read once, and every number stays what it is for each text alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.evaluate import scoring
from lmworks.evaluate.choices import choice_likelihoods
from lmworks.generate import prefix_length, prefixes
from lmworks.generate.prefix_length import shared_length
from lmworks.generate.prefixes import keeps_keys
from lmworks.generate.stepper import RowStart
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.model.config import ModelConfig, RopeScaling
from lmworks.model.transformer import Transformer

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LONGROPE = RopeScaling(
    kind="longrope", factor=4.0, original_max_position_embeddings=24, short_factor=(1.0,) * 4, long_factor=(3.0,) * 4
)
MODELS: dict[str, dict] = {
    "rotary, grouped": {"num_key_value_heads": 2},
    "learned": {"positions": "learned", "norm": "layer"},
    "sliding window": {"sliding_window": 4},
    "soft caps": {"attention_softcap": 5.0, "logit_softcap": 5.0},
    "longrope": {"rope_scaling": LONGROPE},
    "gru": {"layer": "gru", "intermediate_size": 32, "num_attention_heads": 1},
}
SHARED = [7 + (5 * n) % 40 for n in range(30)]
PROMPTS = [[*SHARED, 5, 6], [*SHARED, 9], [*SHARED, 5, 6, 7, 8, 9], [*SHARED, 11, 12, 13]]
CHOICES = [[[4], [5, 6], [4, 2, 1]], [[4]], [[8, 1], [9, 1]], [[3, 3, 3, 3], [2]]]


@pytest.fixture(name="network", scope="module", params=MODELS)
def _network(request) -> Transformer:
    torch.manual_seed(3)
    network = Transformer(ModelConfig(**{**SIZES, "max_position_embeddings": 64, **MODELS[request.param]})).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network


def nats(network: Transformer, ids: list[int], first: int) -> float:
    """-log p of ids[first:], by one pass over all of them."""
    with torch.no_grad():
        logs = network(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -sum(float(logs[place - 1, ids[place]]) for place in range(first, len(ids)))


def test_only_beginnings_that_are_long_and_followed_by_something_are_shared():
    assert shared_length(PROMPTS) == len(SHARED)
    assert shared_length([SHARED, [*SHARED, 1]]) == len(SHARED) - 1  # a token must follow whose logits are computed
    assert shared_length([SHARED]) == 0
    assert shared_length([[1, *SHARED], [2, *SHARED]]) == 0
    short = SHARED[: prefix_length.SHORTEST - 1]
    assert shared_length([[*short, 1, 2], [*short, 3]]) == 0


@pytest.mark.parametrize(("row_tokens", "cache_bytes"), [(1024, 1 << 28), (5, 1 << 28), (1024, 1)])
def test_choices_are_as_likely_as_their_tokens(network, row_tokens, cache_bytes, monkeypatch):
    monkeypatch.setattr(prefixes, "CACHE_BYTES", cache_bytes)
    for prompts in (PROMPTS, [prompt[len(SHARED) :] for prompt in PROMPTS], PROMPTS[:1]):
        choices = CHOICES[: len(prompts)]
        result = choice_likelihoods(network, prompts, choices, row_tokens)
        for prompt, answers, likelihoods in zip(prompts, choices, result, strict=True):
            wanted = [-nats(network, [*prompt, *answer], len(prompt)) for answer in answers]
            np.testing.assert_allclose(likelihoods, wanted, atol=2e-4, rtol=1e-5)
            assert (likelihoods <= 0).all()


def test_choices_that_do_not_fit_are_named(network):
    with pytest.raises(InputError, match=r"prompt 2: 66 tokens.*64"):
        choice_likelihoods(network, [[1], [1] * 65], [[[2]], [[2]]])
    for prompt, choices in (([], [[2]]), ([2], [[]]), ([2], [])):
        with pytest.raises(InputError, match=r"prompt 1: .*\n.*at least one token"):
            choice_likelihoods(network, [prompt], [choices])


def test_losses_after_a_shared_beginning_are_those_of_each_document(network):
    lengths = [3, 1, 4, 2]
    examples = []
    for prompt, count in zip(PROMPTS, lengths, strict=True):
        ids = np.array([*prompt, *range(20, 20 + count)], dtype=np.int32)
        examples.append(Example(ids, np.arange(len(ids)) >= len(prompt)))
    examples[2].loss[-1] = False
    network.train()
    together = scoring.row_losses(network, examples).language
    assert network.training
    alone = [scoring.row_losses(network.eval(), [example]).language for example in examples]
    np.testing.assert_allclose(together.nats, [float(each.nats[0]) for each in alone], atol=2e-4)
    assert together.targets.tolist() == [3, 1, 3, 2] == [int(each.targets[0]) for each in alone]
    assert together.correct.tolist() == [int(each.correct[0]) for each in alone]
    assert (scoring._shared_tokens(network, examples) == len(SHARED)) is keeps_keys(network)
    for example in examples:  # a beginning whose own tokens carry loss is not left out
        example.loss[10:] = True
    assert scoring._shared_tokens(network, examples) == 0


def test_rows_with_a_shared_beginning_go_on_as_alone(network):
    """They are read at once, one leaves, another with the same beginning joins, and one without it."""
    stepper = TorchStepper(network)
    rows = [list(prompt) for prompt in PROMPTS[:3]]
    stepper.prefill([RowStart(row) for row in rows])

    def check() -> None:
        for row, logits in zip(rows, stepper.logits, strict=True):
            single = TorchStepper(network)
            single.prefill([RowStart(row)])
            np.testing.assert_allclose(logits.numpy(), single.logits[0].numpy(), atol=3e-4, rtol=1e-4)
        assert stepper.lengths == list(map(len, rows))

    def step() -> None:
        tokens = [3 + place for place in range(len(rows))]
        stepper.step(tokens)
        for row, token in zip(rows, tokens, strict=True):
            row.append(token)

    check()
    step()
    check()
    stepper.keep([0, 1])  # the longest has left
    rows = rows[:2]
    for new in ([*SHARED, 1, 2], [1, 2, 3]):
        stepper.add([RowStart(new)])
        rows.append(new)
        check()
        step()
        check()
    stepper.prefill([RowStart([*SHARED, 2])])
    rows = [[*SHARED, 2]]
    check()
    assert (stepper._prefix is not None) is keeps_keys(network)
