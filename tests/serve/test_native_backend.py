"""Sequences in the native engine: bit for bit what each prompt gives alone, whatever else is read, written or kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import BLOCK_KINDS, weights_of
from lmworks.generate.stepper import RowStart
from lmworks.kernels.native_module import native_module
from lmworks.model.config import ModelConfig
from lmworks.model.storage import BlockStorage
from lmworks.model.stored_layers import store
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer
from lmworks.serve.native_backend import MOST_AT_ONCE, NativeBackend
from lmworks.serve.prompt_parts import FEWEST_TERNARY, FEWEST_TILED, SMALLEST_LIMIT, WHOLE_PART

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

VOCABULARY, CONTEXT = 97, 700
LENGTHS = (1, 20, 31, 32, 70, 256, 280, 300, 530)


def engine_of(kind: str | None):
    torch.manual_seed(0)
    width, inner = (256, 512) if kind is not None and kind.startswith("TQ") else (64, 160)  # whole blocks
    config = ModelConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=inner, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT,
    )  # fmt: skip
    network = Transformer(config).eval().requires_grad_(False)
    for weight in network.parameters():
        weight += torch.randn_like(weight) * 0.1
    if kind is not None:
        quants = pytest.importorskip("gguf.quants")
        from gguf.constants import GGMLQuantizationType

        for name, linear in list(named_linears(network)):
            blocks = quants.quantize(linear.weight.numpy(), GGMLQuantizationType[kind])
            store(network, name, BlockStorage(torch.from_numpy(blocks), kind))
    return weights_of(network).engine


def fewest_of(kind: str | None) -> int:
    return FEWEST_TERNARY if kind == "TQ2_0" else FEWEST_TILED


def ids(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, length).tolist()


def alone(engine, prompt: list[int], tokens: list[int]) -> list[np.ndarray]:
    """The logits after the prompt and after each of these tokens."""
    stepper = NativeStepper(engine, VOCABULARY, CONTEXT)
    stepper.prefill([RowStart(prompt)])
    result = [stepper.logits[0].copy()]
    for token in tokens:
        stepper.step([token])
        result.append(stepper.logits[0].copy())
    return result


def read(backend: NativeBackend, number: int, limit: int) -> np.ndarray:
    while True:
        _, logits = backend.read(number, limit)
        if logits is not None:
            assert backend.is_read(number)
            return logits[-1]


@pytest.mark.parametrize("kind", [None, *BLOCK_KINDS])
def test_many_at_a_time_get_the_bits_of_each_alone(kind):
    """More sequences than are computed at once, read in small parts while others are written."""
    engine = engine_of(kind)
    backend = NativeBackend(engine, VOCABULARY, CONTEXT, most=64, cache_limit=0, fewest=fewest_of(kind))
    prompts = [ids(length, seed) for seed in range(5) for length in LENGTHS]
    assert len(prompts) > MOST_AT_ONCE
    written: dict[int, tuple[list[int], list[int], list[np.ndarray]]] = {}
    for index, prompt in enumerate(prompts):
        number, _ = backend.add(prompt)
        logits = read(backend, number, SMALLEST_LIMIT if index % 2 else WHOLE_PART)
        written[number] = (prompt, [], [logits])
        tokens = [int(rows[-1].argmax()) for _, _, rows in written.values()]
        if index % 9 == 8:
            for token, row, (_, taken, rows) in zip(
                tokens, backend.step(list(written), tokens), written.values(), strict=True
            ):
                taken.append(token)
                rows.append(row)
    for prompt, taken, rows in written.values():
        expected = alone(engine, prompt, taken)
        assert len(expected) == len(rows)
        assert all((first == second).all() for first, second in zip(expected, rows, strict=True))


@pytest.mark.parametrize("kind", [None, "Q4_0", "TQ2_0"])
def test_reused_beginnings_change_no_bit(kind):
    engine = engine_of(kind)
    backend = NativeBackend(engine, VOCABULARY, CONTEXT, most=64, cache_limit=1 << 30, fewest=fewest_of(kind))
    first = ids(300)
    number, known = backend.add(first)
    assert known == 0
    logits = read(backend, number, SMALLEST_LIMIT)
    tokens = []
    for _ in range(20):
        tokens.append(int(logits.argmax()))
        (logits,) = backend.step([number], tokens[-1:])
    backend.remove(number)
    following = [
        first,
        first[:200] + ids(100, 1),
        first + tokens + ids(50, 2),
        first[:257],
        first[:20] + ids(7, 3),
        ids(300, 4),
    ]
    reused = []
    for prompt in following:
        number, known = backend.add(prompt)
        reused.append(known)
        logits = read(backend, number, WHOLE_PART)
        assert (logits == alone(engine, prompt, [])[0]).all()
        (row,) = backend.step([number], [5])
        assert (row == alone(engine, prompt, [5])[1]).all()
        backend.remove(number)
    assert reused == ([256, 192, 256, 256, 0, 0] if kind == "TQ2_0" else [268, 200, 300, 256, 0, 0])


def test_a_beginning_that_is_still_in_use_is_reused():
    backend = NativeBackend(engine_of(None), VOCABULARY, CONTEXT, most=4, cache_limit=0)
    number, _ = backend.add(ids(200))
    read(backend, number, WHOLE_PART)
    _, known = backend.add(ids(200)[:150] + ids(60, 1))
    assert known == 150


def test_what_is_kept_stays_within_its_limit():
    engine = engine_of(None)
    before = engine.sizes()[1]
    backend = NativeBackend(engine, VOCABULARY, CONTEXT, most=4, cache_limit=before + 2_000_000)
    for seed in range(20):
        number, _ = backend.add(ids(300, seed))
        read(backend, number, WHOLE_PART)
        backend.remove(number)
        assert backend.cache_bytes() <= before + 2_000_000
    assert backend.add(ids(300, 19))[1] == 268
    assert backend.add(ids(300, 0))[1] == 0


def test_logits_of_a_whole_prompt_are_given_where_they_are_asked_for():
    engine = engine_of(None)
    backend = NativeBackend(engine, VOCABULARY, CONTEXT, most=4, cache_limit=0)
    prompt = ids(150)
    number, known = backend.add(prompt, all_logits=True)
    rows = [backend.read(number, SMALLEST_LIMIT)[1] for _ in range(3)]
    assert known == 0
    assert backend.is_read(number)
    logits = np.concatenate(rows)
    assert logits.shape == (150, VOCABULARY)
    expected = alone(engine, prompt[:1], prompt[1:])
    np.testing.assert_allclose(logits, expected, atol=1e-4)
