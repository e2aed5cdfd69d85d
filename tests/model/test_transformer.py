"""The transformer gives the same whichever way the same tokens reach it."""

import pytest
import torch

from lmworks.base.errors import InputError
from lmworks.kernels.activations import ACTIVATIONS
from lmworks.model.cache import Cache
from lmworks.model.config import ModelConfig, RopeScaling
from lmworks.model.masks import AttentionMask
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
    "relative": {"positions": "relative", "relative_buckets": 8, "relative_max_distance": 6, "attention_scale": 1.0},
    "relative window": {"positions": "relative", "sliding_window": 4},
    "halves": {"positions": "sinusoidal_halves", "norm": "layer"},
    "offset": {"positions": "learned", "position_offset": 2, "embedding_norm": True, "embedding_scale": 3.0},
    "both norms": {"norm_position": "both", "norm": "rms_offset", "attention_softcap": 2.0, "logit_softcap": 3.0},
    "narrow embeddings": {"embedding_size": 16, "num_layer_groups": 1, "num_hidden_layers": 3, "head_transform": True},
    "rich head": {"head_transform": True, "head_bias": True, "head_scale": 0.5, "norm": "layer"},
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
    torch.testing.assert_close(a, b, atol=5e-5, rtol=1e-4)


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
    if network.config.positions == "relative" and network.config.sliding_window:
        pytest.skip("no family has relative positions and windows; it is refused")
    lengths = [5, 1, 9, 3, 3, 3]  # neighbours of equal length pass as a batch
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
        close(logits[row][segments[row] == 1], network(tokens).logits[0])


def test_picked_places_equal_all_logits_and_their_gradients(network):
    ids, only = ids_of(2, 7), torch.tensor([1, 5, 13])
    picked = network(ids, logits_to_keep=only).logits
    close(picked, network(ids).logits.flatten(0, 1)[only])
    gradients = []
    for logits in (network(ids, logits_to_keep=only).logits, network(ids).logits.flatten(0, 1)[only]):
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


@pytest.mark.parametrize("wrong", [-1, 10_000])
def test_an_id_without_a_row_is_named_with_those_that_there_are(network, wrong):
    ids = ids_of(1, 3)
    ids[0, 1] = wrong
    last = network.config.vocab_size - 1
    with pytest.raises(InputError, match=f"id {wrong}: .*\n.*from 0 to {last}"):
        network(ids)
    ids[0, 1] = last
    assert network(ids).logits.shape[1] == 3


def test_recomputing_changes_no_gradient():
    gradients = []
    for recompute in (0, 1, 99):
        network = make()
        network.recompute_lowest(recompute)
        network(ids_of(2, 7)).logits.square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for first, *others in zip(*gradients, strict=True):
        for other in others:
            torch.testing.assert_close(first, other, atol=0, rtol=0)


def test_the_encoder_s_blocks_are_the_lowest():
    network = make(architecture="encoder-decoder", num_decoder_layers=2)
    depth = network.encoder.depth
    for blocks, expected in ((0, (0, 0)), (1, (1, 0)), (depth + 1, (depth, 1))):
        network.recompute_lowest(blocks)
        assert (min(depth, network.encoder.recompute), network.recompute) == expected


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
    cache.append_positions(torch.arange(3).expand(2, 3), None)
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
    mask = AttentionMask(True, positions, positions, segments, segments).matrix(window=2)[0, 0]
    for query in range(6):
        for key in range(6):
            distance = int(positions[0, query] - positions[0, key])
            assert mask[query, key] == (segments[0, query] == segments[0, key] and 0 <= distance < 2)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_trains(name):
    network = make(activation=name)
    network(ids_of(1, 5)).logits.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


BOTH = {"architecture": "encoder-decoder", "num_decoder_layers": 3, "qkv_bias": True}
SOURCES = {
    "original": {"positions": "sinusoidal_halves", "norm": "layer", "norm_position": "post", "gated": False},
    "relative": {"positions": "relative", "attention_scale": 1.0, "relative_max_distance": 8},
    "learned": {"positions": "learned", "position_offset": 2, "embedding_norm": True, "norm_position": "post"},
    "rotary": {"num_key_value_heads": 2},
}


@torch.no_grad()
@pytest.mark.parametrize("name", SOURCES)
def test_packed_sources_and_targets_equal_each_alone(name):
    network = make(**BOTH, **SOURCES[name])
    pairs = [(ids_of(1, 4), ids_of(1, 7)), (ids_of(1, 6), ids_of(1, 2)), (ids_of(1, 6), ids_of(1, 2))]
    alone = [network(target, memory=network.encode(source)).logits for source, target in pairs]
    sources, targets = (torch.cat(side, 1) for side in zip(*pairs, strict=True))
    places = [[torch.arange(side.shape[1]) for side in row] for row in zip(*pairs, strict=True)]
    marks = [[torch.full((len(own),), n) for n, own in enumerate(row, 1)] for row in places]
    (source_places, target_places), (source_marks, target_marks) = (
        [torch.cat(row)[None] for row in both] for both in (places, marks)
    )
    memory = network.encode(sources, source_marks, source_places)
    packed = network(
        targets, positions=target_places, segments=target_marks, memory=memory, memory_segments=source_marks
    )
    close(packed.logits, torch.cat(alone, 1))


@torch.no_grad()
@pytest.mark.parametrize("name", SOURCES)
def test_a_decoder_with_a_padded_source_equals_it_alone_step_by_step(name):
    network = make(**BOTH, **SOURCES[name])
    source, target = ids_of(2, 6), ids_of(2, 5)
    marks = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    memory = network.encode(source, marks)
    cache = Cache(network.config, batch=2, capacity=2)
    steps = [network(part, cache=cache, memory=memory, memory_segments=marks).logits for part in target.split(1, 1)]
    for row, length in enumerate((4, 6)):
        alone = network(target[row : row + 1], memory=network.encode(source[row : row + 1, :length])).logits
        close(torch.cat(steps, 1)[row : row + 1], alone)


def test_capped_scores_follow_their_definition():
    network = make(attention_softcap=2.0, num_hidden_layers=1, positions="none")
    attention, x = network.layers[0].self_attn, torch.randn(1, 6, 32)
    mask = AttentionMask(True, *(torch.arange(6)[None] for _ in range(2)))
    query, key, value = (
        part(x).view(6, 4, 8).transpose(0, 1) for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    scores = (2.0 * torch.tanh(query @ key.mT / 8**0.5 / 2.0)).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    expected = attention.o_proj((scores.softmax(-1) @ value).transpose(0, 1).reshape(1, 6, 32))
    close(attention(x, mask), expected)


def test_layers_that_share_a_block_have_its_weights_once():
    network = make(num_layer_groups=1, num_hidden_layers=4)
    apart = make(num_hidden_layers=4)
    state = {
        name.replace("layers.0", f"layers.{layer}"): weight
        for name, weight in network.state_dict().items()
        for layer in (range(4) if "layers" in name else (0,))
    }
    apart.load_state_dict(state)
    close(network(ids_of(1, 5)).logits, apart(ids_of(1, 5)).logits)


def test_token_types():
    network = make(architecture="encoder", type_vocab_size=2, norm="layer")
    ids, types = ids_of(1, 6), torch.tensor([[0, 0, 0, 1, 1, 1]])
    plain, typed = network.hidden_states(ids), network.hidden_states(ids, types=types)
    close(plain, network.hidden_states(ids, types=torch.zeros_like(types)))
    assert not torch.allclose(plain, typed, atol=1e-3)
