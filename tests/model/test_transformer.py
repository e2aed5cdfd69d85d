"""The transformer gives the same whichever way the same tokens reach it."""

import pytest
import torch

from lmworks.model.cache import Cache
from lmworks.model.config import ModelConfig, RopeScaling
from lmworks.model.feedforward import ACTIVATIONS
from lmworks.model.masks import Sight
from lmworks.model.transformer import Transformer

VARIANTS = {
    "rotary": {},
    "grouped": {"num_key_value_heads": 2},
    "multi-query": {"num_key_value_heads": 1},
    "untied": {"tie_word_embeddings": False},
    "learned": {"positions": "learned", "norm": "layer", "gated": False, "activation": "gelu_tanh", "qkv_bias": True},
    "sinusoidal": {"positions": "sinusoidal", "gated": False, "activation": "relu"},
    "post-norm": {"norm_position": "post", "norm": "layer"},
    "qk-norm": {"qk_norm": True, "head_dim": 12},
    "window": {"sliding_window": 4},
    "some windows": {"sliding_window": 3, "layer_kinds": ("sliding_attention", "full_attention")},
    "dynamic": {"rope_scaling": RopeScaling(kind="dynamic", factor=4.0), "max_position_embeddings": 6},
    "yarn": {"rope_scaling": RopeScaling(kind="yarn", factor=4.0, original_max_position_embeddings=16)},
}


def make(seed: int = 0, **fields) -> Transformer:
    sizes = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(seed)
    network = Transformer(ModelConfig(**(sizes | fields))).eval()
    for parameter in network.parameters():  # away from norms of one and biases of zero
        torch.nn.init.normal_(parameter, std=0.15)
    return network


@pytest.fixture(params=VARIANTS, name="network")
def _network(request) -> Transformer:
    return make(**VARIANTS[request.param])


def ids_of(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 61, (rows, length), generator=torch.Generator().manual_seed(1))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("steps", [[1] * 12, [5, 1, 1, 5], [7, 5]])
def test_cached_equals_uncached(network, steps):
    ids = ids_of(2, 12)
    cache = Cache(network.config, batch=2, capacity=3)
    parts = [network(part, cache=cache).logits for part in ids.split(steps, dim=1)]
    # dynamic NTK turns by the longest position seen, so each call equals an uncached one of the same length
    ends = torch.tensor(steps).cumsum(0).tolist()
    whole = [network(ids[:, :end]).logits[:, -size:] for end, size in zip(ends, steps, strict=True)]
    close(torch.cat(parts, 1), torch.cat(whole, 1))


@torch.no_grad()
def test_packed_documents_equal_each_alone(network):
    if network.config.rope_scaling and network.config.rope_scaling.kind == "dynamic":
        pytest.skip("dynamic NTK depends on the longest document of the row by definition")
    lengths = [5, 1, 9]
    documents = [ids_of(1, length) for length in lengths]
    flat = torch.cat(documents, 1)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    segments = torch.cat([torch.full((length,), i + 1) for i, length in enumerate(lengths)])[None]
    packed = network(flat, positions=positions, segments=segments).logits
    close(packed, torch.cat([network(document).logits for document in documents], 1))


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cached", [False, True])
def test_padded_equals_alone(network, side, cached):
    lengths, width = [4, 9, 6], 9
    rows = [ids_of(1, length) for length in lengths]
    ids, segments, positions = (torch.zeros(3, width, dtype=torch.int64) for _ in range(3))
    for row, (tokens, length) in enumerate(zip(rows, lengths, strict=True)):
        place = slice(width - length, width) if side == "left" else slice(0, length)
        ids[row, place], segments[row, place], positions[row, place] = tokens[0], 1, torch.arange(length)
    cache = Cache(network.config, 3, 4) if cached else None
    logits = network(ids, positions=positions, segments=segments, cache=cache).logits
    for row, tokens in enumerate(rows):
        # compared at the longest length, so that dynamic NTK turns alike
        longest = network(torch.cat([tokens, ids_of(1, width - tokens.shape[1])], 1)).logits[:, : tokens.shape[1]]
        close(logits[row][segments[row] == 1], longest[0])


def test_picked_places_equal_all_logits_and_their_gradients(network):
    ids, only = ids_of(2, 7), torch.tensor([1, 5, 13])
    picked = network(ids, only=only).logits
    close(picked, network(ids).logits.flatten(0, 1)[only])
    gradients = []
    for logits in (network(ids, only=only).logits, network(ids).logits.flatten(0, 1)[only]):
        network.zero_grad()
        logits.square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        close(a, b)


@torch.no_grad()
def test_embeddings_in_place_of_ids(network):
    ids = ids_of(2, 7)
    close(network(embeddings=network.embed_tokens(ids)).logits, network(ids).logits)
    with pytest.raises(ValueError, match="either"):
        network()


def test_recomputing_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        network = make()
        network.recompute = recompute
        network(ids_of(2, 7)).logits.square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


@torch.no_grad()
def test_additive_bias_reaches_the_scores():
    network, ids = make(num_hidden_layers=1), ids_of(1, 6)
    hide_first = torch.zeros(1, 1, 6, 6)
    hide_first[..., 1:, 0] = -1e9
    hidden = network(ids, attention_bias=hide_first).logits[:, 1:]
    segments = torch.tensor([[1, 2, 2, 2, 2, 2]])
    close(hidden, network(ids, segments=segments, positions=torch.arange(6)[None]).logits[:, 1:])


@torch.no_grad()
def test_an_encoder_sees_both_ways_and_a_decoder_does_not():
    for architecture, same in (("decoder", True), ("encoder", False)):
        network, ids = make(architecture=architecture), ids_of(1, 6)
        changed = ids.clone()
        changed[0, -1] = (ids[0, -1] + 1) % 61
        before, after = network(ids).logits[0, 0], network(changed).logits[0, 0]
        assert torch.allclose(before, after) == same


class TestEncoderDecoder:
    @pytest.fixture(name="network")
    def _network(self) -> Transformer:
        return make(architecture="encoder-decoder", num_decoder_layers=3, norm_position="post", norm="layer")

    @torch.no_grad()
    def test_cross_attention_cached_equals_uncached(self, network):
        source, target = ids_of(2, 5), ids_of(2, 6)
        memory = network.encode(source)
        whole = network(target, memory=memory).logits
        cache = Cache(network.config, 2, 2)
        steps = [network(token, memory=memory, cache=cache).logits for token in target.split(1, dim=1)]
        close(torch.cat(steps, 1), whole)

    @torch.no_grad()
    def test_padding_of_the_source_is_not_seen(self, network):
        source, target = ids_of(1, 5), ids_of(1, 4)
        padded = torch.cat([source, torch.zeros(1, 3, dtype=torch.int64)], 1)
        segments = torch.tensor([[1] * 5 + [0] * 3])
        alone = network(target, memory=network.encode(source)).logits
        memory = network.encode(padded, segments)
        close(network(target, memory=memory, memory_segments=segments).logits, alone)


def test_a_learned_prefix_in_the_cache_gets_a_gradient():
    network, ids = make(), ids_of(2, 4)
    cache = Cache(network.config, 2, 0)
    prefix = torch.randn(2, 4, 3, 8, requires_grad=True)
    for layer in cache.layers:
        layer.append(prefix, prefix)
    cache.note(torch.arange(3).expand(2, 3), None)
    network(ids, cache=cache).logits.sum().backward()
    assert prefix.grad is not None
    assert prefix.grad.abs().sum() > 0


def test_a_row_of_the_cache_can_leave():
    network, ids = make(), ids_of(3, 6)
    with torch.no_grad():
        cache = Cache(network.config, 3, 8)
        network(ids[:, :5], cache=cache)
        cache.keep_rows(torch.tensor([2, 0]))
        close(network(ids[[2, 0], 5:], cache=cache).logits[:, 0], network(ids[[2, 0]]).logits[:, -1])


def test_mask_follows_its_definition():
    positions = torch.tensor([[0, 1, 2, 0, 1, 0]])
    segments = torch.tensor([[1, 1, 1, 2, 2, 0]])
    mask = Sight(True, positions, positions, segments, segments).mask(window=2)[0, 0]
    for query in range(6):
        for key in range(6):
            distance = int(positions[0, query] - positions[0, key])
            assert mask[query, key] == (segments[0, query] == segments[0, key] and 0 <= distance < 2)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_trains(name):
    network = make(activation=name)
    network(ids_of(1, 5)).logits.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
