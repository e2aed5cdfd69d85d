"""Encoders in the native engine beside the PyTorch network: the same hidden states, whatever a config says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_families import make, open_case

from lmworks.base.errors import InputError
from lmworks.generate.encode import NetworkStates
from lmworks.generate.engine_file import WHOLE_MODEL, open_engine
from lmworks.generate.native_states import CALL_TOKENS, NativeStates
from lmworks.generate.native_weights import KINDS, encoder_weights_of, unsupported_encoder, weights_of
from lmworks.generate.text_vectors import token_vectors
from lmworks.kernels.native_module import native_module
from lmworks.model.config import ModelConfig
from lmworks.model.storage import DenseStorage
from lmworks.model.stored_layers import store
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

BERT = {
    "architecture": "encoder", "vocab_size": 97, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 300, "positions": "learned", "norm": "layer",
    "norm_position": "post", "embedding_norm": True, "type_vocab_size": 2, "activation": "gelu", "gated": False,
    "qkv_bias": True, "output_bias": True, "mlp_bias": True, "language_head": False,
}  # fmt: skip
ALBERT = {"num_hidden_layers": 5, "num_layer_groups": 2, "embedding_size": 32, "activation": "gelu_tanh"}
PRE_NORM = {"norm": "rms", "norm_position": "pre", "positions": "rotary", "gated": True, "qk_norm": True}
PRE_NORM |= {"type_vocab_size": 0, "num_key_value_heads": 2, "activation": "silu", "embedding_norm": False}
ODD = {"hidden_size": 75, "num_attention_heads": 3, "intermediate_size": 37, "positions": "none"}
ODD |= {"embedding_scale": 3.0}
KINDS_OF_BLOCKS = {"bert": {}, "albert": ALBERT, "pre-norm": PRE_NORM, "odd": ODD}
PAIRS = {"hidden_size": 72, "num_attention_heads": 3, "intermediate_size": 90}  # of no whole tiles
LENGTHS = (5, 1, 63, 64, 65, 33, 300, 2, 17)


def network_of(**changes) -> Transformer:
    torch.manual_seed(0)
    network = Transformer(ModelConfig.model_validate({**BERT, **changes})).eval().requires_grad_(False)
    for weight in network.parameters():
        weight += torch.randn_like(weight) * (0.2 if weight.ndim > 1 else 0.1)
    return network


def texts_of(lengths=LENGTHS, vocab_size: int = 97) -> list[list[int]]:
    generator = np.random.default_rng(1)
    return [generator.integers(0, vocab_size, length).tolist() for length in lengths]


def native_states(network: Transformer, precision: str = "float32") -> NativeStates:
    config = network.config
    engine = encoder_weights_of(network, precision).engine
    return NativeStates(engine, config.hidden_size, config.max_position_embeddings)


def states_of(states, texts) -> list[np.ndarray]:
    return token_vectors(states, texts, normalize=False)


def assert_close(ours: list[np.ndarray], theirs: list[np.ndarray], share: float) -> None:
    largest = max(float(np.abs(own).max()) for own in theirs)
    for own, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own, expected, rtol=0, atol=share * largest)


@pytest.fixture(params=native_module().instruction_sets() if native_module() else [])
def instruction_set(request):
    module = native_module()
    before = module.instruction_set()
    module.set_instruction_set(request.param)
    yield request.param
    module.set_instruction_set(before)


@pytest.mark.parametrize("kind", list(KINDS_OF_BLOCKS))
def test_states_are_those_of_the_network(kind, instruction_set):
    network, texts = network_of(**KINDS_OF_BLOCKS[kind]), texts_of()
    assert unsupported_encoder(network) == ""
    assert_close(states_of(native_states(network), texts), states_of(NetworkStates(network), texts), 1e-5)


@pytest.mark.parametrize("changes", [{}, ALBERT, PRE_NORM, PAIRS], ids=["bert", "albert", "pre-norm", "pairs"])
def test_in_bfloat16_the_vectors_are_nearly_the_same(changes, instruction_set):
    """Each product rounds its input to 8 bits of fraction; the mean of a text's states has a cosine near 1."""
    network, texts = network_of(**changes), texts_of()
    ours, theirs = states_of(native_states(network, "bfloat16"), texts), states_of(NetworkStates(network), texts)
    for own, expected in zip(ours, theirs, strict=True):
        assert np.abs(own - expected).max() > 0
        first, second = own.mean(0), expected.mean(0)
        assert 1 - first @ second / np.linalg.norm(first) / np.linalg.norm(second) < 1e-3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("changes", [{}, PRE_NORM, PAIRS], ids=["bert", "pre-norm", "pairs"])
def test_a_text_gets_the_bits_that_it_gets_alone(changes, precision, instruction_set):
    """By one thread or three, which share long texts or take some each."""
    states, texts = native_states(network_of(**changes), precision), texts_of()
    together = states_of(states, texts)
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for own, text in zip(together, texts, strict=True):
                np.testing.assert_array_equal(states_of(states, [text])[0], own)
            for own, again in zip(together, states_of(states, texts), strict=True):
                np.testing.assert_array_equal(again, own)
    finally:
        torch.set_num_threads(1)


def test_many_texts_take_several_calls():
    network = network_of(num_hidden_layers=1, max_position_embeddings=4096)
    texts = texts_of([4096, *[400] * 40, *range(1, 100)])
    assert sum(map(len, texts)) > CALL_TOKENS
    groups = [len(group) for group in native_states(network).of_texts(texts)]
    assert len(groups) > 1
    assert sum(groups) == len(texts)
    assert_close(states_of(native_states(network), texts), states_of(NetworkStates(network), texts), 1e-5)
    assert states_of(native_states(network), []) == []


@pytest.mark.parametrize(
    "case",
    [
        *("bert", "bert-masked", "minilm", "roberta", "roberta-padding", "xlm-roberta", "distilbert"),
        *("distilbert-untied", "albert", "albert-groups", "albert-groups-alone", "albert-bare"),
    ],
)
def test_every_family_of_encoders_gives_the_states_of_transformers(case, tmp_path):
    theirs, ours = open_case(case, tmp_path)
    texts = [[3 + token % 90 for token in text] for text in texts_of((1, 9, 62, 30))]  # none of them special
    assert unsupported_encoder(ours.network) == ""
    with torch.no_grad():
        expected = [theirs.base_model(torch.tensor([text])).last_hidden_state[0].numpy() for text in texts]
    assert_close(states_of(native_states(ours.network), texts), expected, 1e-4)


def test_matrices_of_other_precisions_are_read():
    network = network_of()
    expected = states_of(NetworkStates(network), texts_of())
    for name, linear in list(named_linears(network)):
        store(network, name, DenseStorage(linear.weight.detach().to(torch.float16)))
    assert unsupported_encoder(network) == ""
    assert_close(states_of(native_states(network), texts_of()), expected, 5e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("changes", [{}, ALBERT, PRE_NORM], ids=["bert", "albert", "pre-norm"])
def test_a_read_file_gives_the_same_bits(changes, precision, tmp_path):
    network, path = network_of(**changes), tmp_path / "engine.safetensors"
    weights = encoder_weights_of(network, precision)
    weights.save(path)
    read = NativeStates(open_engine(path), network.config.hidden_size, 300)
    expected_states = states_of(native_states(network, precision), texts_of())
    for own, expected in zip(states_of(read, texts_of()), expected_states, strict=True):
        np.testing.assert_array_equal(own, expected)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        open_engine(path)


def test_faults_are_refused_and_leave_the_engine_usable():
    network = network_of()
    engine = encoder_weights_of(network).engine
    hidden = np.empty((4, 64), np.float32)

    def encode(tokens, offsets, out=hidden) -> None:
        engine.encode(np.array(tokens, np.int64), np.array(offsets, np.int64), out)

    for tokens, offsets, fault in [
        ([1, 2, 3, 97], [0, 4], "no token 97"),
        ([1, 2, 3, -1], [0, 4], "no token -1"),
        ([1, 2, 3, 4], [0, 2, 2, 4], "text 1 is empty"),
        ([1, 2, 3, 4], [0, 3, 2, 4], "text 1 is empty"),
        ([1, 2, 3, 4], [0, 3], "offsets"),
        ([1, 2, 3, 4], [1, 4], "offsets"),
        ([1, 2, 3, 4], [0, 2**62, 4], "longer than the model's context"),
        ([1, 2, 3, 4], [], "offsets"),
    ]:
        with pytest.raises(ValueError, match=fault):
            encode(tokens, offsets)
    with pytest.raises(ValueError, match="longer than the model's context"):
        encode([1] * 301, [0, 301], np.empty((301, 64), np.float32))
    with pytest.raises(ValueError, match="hidden"):
        encode([1, 2], [0, 2])
    encode([1, 2, 3, 4], [0, 1, 4])
    expected = states_of(NetworkStates(network), [[1], [2, 3, 4]])
    assert_close([hidden[:1], hidden[1:]], expected, 1e-5)
    sequence = engine.add_sequence(4)
    with pytest.raises(ValueError, match="holds an encoder"):
        engine.step(np.array([sequence]), np.array([1]), np.array([1]), np.empty((1, 97), np.float32))


def test_an_engine_without_all_that_an_encoder_needs_is_refused():
    def engine_with(config=(), network=None):
        """The engine as it is filled, and the same config with some other values."""
        weights = encoder_weights_of(network or network_of())
        values = {**weights._config, **dict(config)}
        return native_module().Engine(values)

    parts = {"post_norm": True, "depth": 3, "embedding_size": 64}
    for wrong in ({"depth": 2}, {"depth": 10**9}, {"embedding_size": 0}):
        with pytest.raises(ValueError, match="no such depth or width"):
            engine_with({"encoder": {**parts, **wrong}})
    with pytest.raises(ValueError, match="lacks a matrix"):
        engine_with().finish()
    weights = encoder_weights_of(network_of())
    half = torch.zeros(64, 64, dtype=torch.bfloat16).view(torch.uint8).reshape(-1).numpy()
    weights.engine.set_matrix(1, "k_proj", KINDS[torch.bfloat16], half, None)
    with pytest.raises(ValueError, match="finish"):
        weights.engine.encode(np.array([1]), np.array([0, 1]), np.empty((1, 64), np.float32))
    with pytest.raises(ValueError, match="of one kind"):
        weights.engine.finish()
    weights = encoder_weights_of(network_of())
    weights.engine.set_norm(1, "mlp_output_layernorm", np.ones(64, np.float32), None)
    with pytest.raises(ValueError, match="norms of outputs"):
        weights.engine.finish()
    with pytest.raises(ValueError, match="sizes do not agree"):
        weights.engine.set_vector("embed_tokens", np.ones(5, np.float32))
    assert WHOLE_MODEL < 0


def test_a_decoder_gives_no_states():
    decoder = network_of(architecture="decoder", language_head=True, norm_position="pre")
    with pytest.raises(ValueError, match="holds a decoder"):
        weights_of(decoder).engine.encode(np.array([1]), np.array([0, 1]), np.empty((1, 64), np.float32))


def test_networks_that_it_cannot_compute_are_named():
    for changes, words in [
        ({"positions": "relative"}, "relative"),
        ({"positions": "sinusoidal"}, "sinusoidal"),
        ({"norm_position": "both"}, "both sides"),
        ({"sliding_window": 8}, "windows"),
        ({"attention_softcap": 5.0}, "capped"),
        ({"architecture": "decoder"}, "encoders"),
        ({"activation": "tanh"}, "activation tanh"),
    ]:
        assert words in unsupported_encoder(network_of(**changes))
    assert unsupported_encoder(network_of()) == ""


def test_threads_take_turns():
    """Calls by several threads at once: each gets its own states."""
    states, texts = native_states(network_of()), texts_of((5, 40, 90, 17))
    alone = [states_of(states, [text])[0] for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: [states_of(states, [text])[0] for _ in range(20)], texts))
    for expected, repeated in zip(alone, together, strict=True):
        for own in repeated:
            np.testing.assert_array_equal(own, expected)


def test_the_models_of_transformers_are_different():
    """The comparison above would mean nothing if all texts had the same states."""
    theirs = make("minilm").requires_grad_(False)
    first, second = (theirs(torch.tensor([ids])).last_hidden_state for ids in ([5, 6, 7], [7, 6, 5]))
    assert float((first - second).abs().max()) > 0.1
