"""Decoding: batches give what each prompt gives alone; the cache changes nothing; the ends are where they belong."""

import pytest
import torch

from lmworks.base.errors import InputError
from lmworks.generate.decode import decode
from lmworks.generate.packed import can_pack, pack
from lmworks.generate.sampling import SamplingSettings
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer

PROMPTS = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9, 10], [11, 12]]


@pytest.fixture(name="network", scope="module")
def _network() -> Transformer:
    torch.manual_seed(0)
    network = Transformer(
        ModelConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=32,
        )
    ).eval()  # fmt: skip
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def run(network, prompts, end_ids=frozenset(), **settings) -> list[list[int]]:
    texts: list[list[int]] = [[] for _ in prompts]
    for step in decode(network, prompts, SamplingSettings(**settings), set(end_ids)):
        for text, token in zip(texts, step, strict=True):
            if token is not None:
                text.append(token)
    return texts


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "top_k": 12, "seed": 4}, {"repetition_penalty": 1.4}])
def test_a_batch_of_unequal_prompts_equals_one_by_one(network, settings):
    together = run(network, PROMPTS, max_tokens=12, end_ids={7}, **settings)
    assert together == [run(network, [prompt], max_tokens=12, end_ids={7}, **settings)[0] for prompt in PROMPTS]


def test_greedy_equals_the_uncached_argmax(network):
    text = list(PROMPTS[0])
    for token in run(network, [text], max_tokens=10)[0]:
        with torch.no_grad():
            assert token == int(network(torch.tensor([text])).logits[0, -1].argmax())
        text.append(token)


def test_an_end_token_is_given_and_ends_the_row(network):
    free = run(network, [PROMPTS[0]], max_tokens=10)[0]
    end = free[3]
    assert run(network, [PROMPTS[0]], max_tokens=10, end_ids={end})[0] == free[: free.index(end) + 1]


def test_the_context_is_the_end(network):
    assert [len(text) for text in run(network, [[1] * 30, [1] * 20], max_tokens=99)] == [2, 12]
    with pytest.raises(InputError, match="context holds 32"):
        run(network, [[1] * 32])
    with pytest.raises(InputError, match="empty"):
        run(network, [[]])


@pytest.mark.skipif(not can_pack(), reason="this PyTorch or processor has no packed bfloat16 product")
def test_packed_linears_give_the_same_as_plain_bfloat16(network):
    twin = Transformer(network.config).eval()
    twin.load_state_dict(network.state_dict())
    twin.bfloat16()
    ids = torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        plain = twin(ids).logits
        assert pack(twin) == 2 * 7
        torch.testing.assert_close(twin(ids).logits, plain, atol=5e-2, rtol=5e-2)
