"""Decoding: batches give what each prompt gives alone; the cache changes nothing; the ends are where they belong."""

import gguf
import pytest
import torch

from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.generate.decode import decode
from lmworks.generate.packed import FourBitLinear, four_bit_groups, make_fast
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.model.cache import Cache
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
    for step in decode(TorchStepper(network), prompts, SamplingSettings(**settings), set(end_ids)):
        for text, token in zip(texts, step, strict=True):
            if token is not None:
                text.append(token.id)
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


def test_a_context_slides_as_reading_the_last_tokens_anew_does(network):
    """Greedy, against a loop without a cache; prompts of a batch reach the end of the context at different steps."""
    prompts = [[1] * 30, [2, 3], list(range(1, 50))]
    written = run(network, prompts, max_tokens=40, slide=True)
    for prompt, tokens in zip(prompts, written, strict=True):
        text = list(prompt)
        for token in tokens:
            with torch.no_grad():
                assert token == int(network(torch.tensor([text[-32:]])).logits[0, -1].argmax())
            text.append(token)
        assert len(tokens) == 40


def test_what_does_not_slide_is_refused():
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = ModelConfig(
        architecture="encoder-decoder", num_decoder_layers=1, num_attention_heads=1, max_position_embeddings=8, **sizes
    )
    with pytest.raises(InputError, match="encoder-decoder does not slide"):
        run(Transformer(config), [[1]], slide=True)
    with pytest.raises(InputError, match="does not slide: set slide to false"):
        build(SamplingSettings, {"num_beams": 2, "slide": True}, "generate")


def twin_of(network: Transformer) -> Transformer:
    twin = Transformer(network.config).eval().requires_grad_(False)
    twin.load_state_dict(network.state_dict())
    return twin


def four_bit_linears(network: Transformer) -> int:
    return sum(isinstance(module, FourBitLinear) for module in network.modules())


def test_a_bfloat16_network_made_fast_gives_the_same_as_plain_bfloat16(network):
    plain, fast = twin_of(network).bfloat16(), twin_of(network)
    make_fast(fast, "bfloat16")
    assert four_bit_linears(fast) == 0
    ids = torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        torch.testing.assert_close(fast(ids).logits.float(), plain(ids).logits.float(), atol=8e-2, rtol=8e-2)


class TestFourBits:
    @pytest.fixture(name="rounded")
    def _rounded(self, network) -> Transformer:
        """A network whose linears went through a Q4_1 file."""
        twin = twin_of(network)
        for module in twin.modules():
            if isinstance(module, torch.nn.Linear):
                blocks = gguf.quantize(module.weight.numpy(), gguf.GGMLQuantizationType.Q4_1)
                remaining = gguf.dequantize(blocks, gguf.GGMLQuantizationType.Q4_1)
                module.weight.data = torch.from_numpy(remaining).view_as(module.weight).clone()
        return twin

    def test_weights_of_a_four_bit_file_are_found_again(self, rounded):
        for module in rounded.modules():
            if isinstance(module, torch.nn.Linear):
                levels, scales, lowest = four_bit_groups(module.weight)
                again = levels.view(len(levels), -1, 32) * scales[..., None] + lowest[..., None]
                torch.testing.assert_close(again.view_as(module.weight), module.weight, atol=2e-4, rtol=2e-3)

    def test_other_weights_are_not_rounded(self, network):
        assert all(four_bit_groups(m.weight) is None for m in network.modules() if isinstance(m, torch.nn.Linear))

    def test_one_token_at_a_time_gives_the_same_within_bfloat16(self, rounded):
        fast = twin_of(rounded)
        make_fast(fast, "float32")
        assert four_bit_linears(fast) == 14
        ids = torch.tensor([PROMPTS[2]])
        with torch.no_grad():
            wanted = rounded(ids).logits
            torch.testing.assert_close(fast(ids).logits, wanted, atol=1e-5, rtol=1e-5)  # many rows: the plain product
            cache = Cache(fast.config, 1, 8)
            stepped = torch.cat([fast(token, cache=cache).logits for token in ids.split(1, dim=1)], 1)
        torch.testing.assert_close(stepped, wanted, atol=0.1, rtol=0.1)
