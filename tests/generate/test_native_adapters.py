"""Adapters in the native engine: each sequence is computed with its own, as the network with that adapter alone."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from test_native_stepper import BASE, BLOCKS, GEMMA, GPT2, ODD, instruction_set, network_in_blocks, network_of, prompts

from lmworks.adapt import adapters
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.generate.decode import decode
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import native_stepper, weights_of
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.stepper import RowStart, Stepper
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.kernels.native_module import native_module
from lmworks.model.transformer import Transformer

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")
__all__ = ["instruction_set"]  # a fixture

ROWS = ("a", None, "b", "a", "b", None)
LENGTHS = (5, 40, 1, 33, 70, 9)
VOCABULARY, CONTEXT = BASE["vocab_size"], BASE["max_position_embeddings"]
ADAPTERS = {
    "a": {"rank": 4, "target_modules": "all-linear"},
    "b": {"rank": 19, "target_modules": "q_proj,v_proj,down_proj"},  # not whole groups of 16 rows
}


def adapted(network: Transformer, seed: int, **options: Any) -> Transformer:
    """A copy of a network with an adapter that changes its logits."""
    network = deepcopy(network)
    LoRA(LoRASettings(alpha=2.0 * options["rank"], **options)).apply(network, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if name.endswith("lora_B"):
            weight.data.normal_(0.0, 0.2, generator=generator)
    return network.eval().requires_grad_(False)


def updates_of(network: Transformer) -> list[tuple[int, str, np.ndarray, np.ndarray]]:
    updates = []
    for name, factors in LoRA.factors(network).items():
        _, layer, _, linear = name.split(".")
        updates.append((int(layer), linear, factors.a.numpy(), (factors.scale * factors.b).numpy()))
    return updates


def with_adapters(base: Transformer, precision: str = "float32") -> tuple[Any, dict[str | None, Transformer]]:
    """An engine with both adapters, and the network with each of them and with none."""
    networks: dict[str | None, Transformer] = {None: base}
    engine = weights_of(base, precision).engine
    for seed, (name, options) in enumerate(ADAPTERS.items(), 1):
        networks[name] = adapted(base, seed, **options)
        engine.add_adapter(name, updates_of(networks[name]))
    return engine, networks


def stepper_of(engine: Any, adapter: str | None = None) -> NativeStepper:
    return NativeStepper(engine, VOCABULARY, CONTEXT, adapter=adapter)


def together(engine: Any, starts: list[RowStart]) -> NativeStepper:
    """All rows in one stepper."""
    stepper = stepper_of(engine)
    for name, start in zip(ROWS, starts, strict=True):
        stepper.adapter = name
        stepper.add([start])
    return stepper


def largest_difference(engine: Any, networks: dict[str | None, Transformer]) -> tuple[float, float]:
    """Of the logits of all rows over some steps from those of the networks, and from those of the base; both as a share
    of the largest logit."""
    starts = prompts(LENGTHS)
    ours = together(engine, starts)
    theirs = [TorchStepper(networks[name]) for name in ROWS]
    bases = [TorchStepper(networks[None]) for _ in ROWS]
    for row, start in enumerate(starts):
        theirs[row].prefill([start])
        bases[row].prefill([start])
    worst, change = 0.0, 0.0
    for step in range(4):
        for row, name in enumerate(ROWS):
            expected, base = theirs[row].logits[0].numpy(), bases[row].logits[0].numpy()
            largest = np.abs(expected).max()
            worst = max(worst, float(np.abs(ours.logits[row] - expected).max() / largest))
            if name is not None:
                change = max(change, float(np.abs(base - expected).max() / largest))
            theirs[row].step([step + row])
            bases[row].step([step + row])
        ours.step([step + row for row in range(len(ROWS))])
    return worst, change


@pytest.mark.parametrize("changes", [{}, GPT2, GEMMA, ODD], ids=["llama", "gpt2", "gemma", "odd"])
def test_logits_are_those_of_the_network_with_the_adapter_of_the_row(changes, instruction_set):
    worst, change = largest_difference(*with_adapters(network_of(**changes)))
    assert worst < 1e-3
    assert change > 0.02


@pytest.mark.parametrize("kind", BLOCKS)
def test_quantized_bases_have_adapters(kind, instruction_set):
    """The base rounds the input of each product to 8 bits, and so does the adapter, of which one factor has 8 bits."""
    worst, change = largest_difference(*with_adapters(network_in_blocks(kind)))
    assert worst < 0.03
    assert change > 0.1


def test_bases_in_bfloat16_have_adapters_in_bfloat16():
    worst, change = largest_difference(*with_adapters(network_of(spread=0.1), "bfloat16"))
    assert worst < 0.05
    assert change > 0.1


@pytest.mark.parametrize("kind", [None, *BLOCKS])
def test_a_row_gets_the_bits_that_it_gets_alone(kind, instruction_set):
    starts = prompts(LENGTHS)
    engine, _ = with_adapters(network_of(spread=0.1) if kind is None else network_in_blocks(kind))
    rows = together(engine, starts)
    rows.step([1, 2, 3, 4, 5, 6])
    for row, (name, start) in enumerate(zip(ROWS, starts, strict=True)):
        alone = stepper_of(engine, name)
        alone.prefill([start])
        alone.step([row + 1])
        assert (alone.logits[0] == rows.logits[row]).all(), name


def test_several_tokens_at_once_get_the_bits_of_one_after_the_other(instruction_set):
    engine, _ = with_adapters(network_of(spread=0.1))
    tokens = torch.randint(0, 97, (20,)).tolist()
    once, singly = stepper_of(engine, "a"), stepper_of(engine, "a")
    for stepper in (once, singly):
        stepper.prefill([RowStart([5, 6, 7])])
    for row, token in zip(once.extend(tokens), tokens, strict=True):
        singly.step([token])
        assert (singly.logits[0] == row).all()


def logits_of(engine: Any, numbers: list[int], tokens: list[int]) -> np.ndarray:
    """(T, V): one step of tokens of these sequences."""
    logits = np.empty((len(tokens), VOCABULARY), np.float32)
    engine.step(np.array(numbers), np.array(tokens), np.ones(len(tokens), np.int64), logits)
    return logits


def test_sequences_whose_tokens_alternate_in_a_step_are_kept_apart(instruction_set):
    """Tokens with one adapter are gathered: those of two sequences must not be taken for tokens of one."""
    engine, _ = with_adapters(network_of(spread=0.1))
    tokens = torch.randint(0, VOCABULARY, (40,)).tolist()
    first, second, third, fourth = (engine.add_sequence(64, cache=None, adapter=name) for name in ("a", "b", "a", "b"))
    mixed = logits_of(engine, [first, second] * 40, [token for token in tokens for _ in range(2)])
    for number, own in ((third, mixed[::2]), (fourth, mixed[1::2])):
        alone = logits_of(engine, [number] * 40, tokens)
        np.testing.assert_allclose(own, alone, atol=1e-4 * np.abs(alone).max())


def test_rows_keep_their_adapters_when_they_move_and_are_copied():
    engine, _ = with_adapters(network_of(spread=0.1))
    starts = prompts(LENGTHS)
    moved = together(engine, starts)
    moved.keep([3, 2, 2, 1])
    moved.step([1, 2, 3, 4])
    straight = together(engine, starts)
    straight.step([0, 4, 2, 1, 0, 0])
    assert (moved.logits[[0, 1, 3]] == straight.logits[[3, 2, 1]]).all()
    straight = together(engine, starts)
    straight.step([0, 0, 3, 0, 0, 0])
    assert (moved.logits[2] == straight.logits[2]).all()


def test_rows_of_adapters_have_a_cache_in_int8():
    engine, _ = with_adapters(network_of(spread=0.1))
    starts = prompts((40,))
    exact, rounded = stepper_of(engine, "a"), NativeStepper(engine, VOCABULARY, CONTEXT, kv_cache="int8", adapter="a")
    for stepper in (exact, rounded):
        stepper.prefill(starts)
        stepper.keep([0, 0])  # copies have both, the precision and the adapter
        stepper.step([1, 2])
    difference = np.abs(exact.logits - rounded.logits).max(1)
    assert (difference > 0).all()
    assert (difference < 0.03 * np.abs(exact.logits).max()).all()


def test_what_a_beginning_shares_is_read_once_with_the_adapter():
    engine, _ = with_adapters(network_of())
    beginning = torch.randint(0, 97, (20,)).tolist()
    rows = [RowStart([*beginning, 5, 6]), RowStart([*beginning, 7])]
    shared = stepper_of(engine, "a")
    shared.prefill(rows)
    for row, start in enumerate(rows):
        alone = stepper_of(engine, "a")
        alone.prefill([start])
        np.testing.assert_allclose(shared.logits[row], alone.logits[0], atol=1e-4 * np.abs(alone.logits).max())


def greedy(stepper: Stepper, settings: SamplingSettings) -> list[int]:
    return [step[0].id for step in decode(stepper, [[5, 6, 7]], settings, set())]


def test_a_full_context_slides_with_the_adapter():
    engine, networks = with_adapters(network_of())
    settings = SamplingSettings(max_tokens=CONTEXT + 10, temperature=0, slide=True)
    assert greedy(stepper_of(engine, "a"), settings) == greedy(TorchStepper(networks["a"]), settings)


def test_merged_and_not_merged_write_the_same():
    engine, networks = with_adapters(network_of())
    settings = SamplingSettings(max_tokens=60, temperature=0)
    texts = {None: greedy(stepper_of(engine), settings)}
    for name in ADAPTERS:
        adapters.merge(networks[name])
        texts[name] = greedy(stepper_of(engine, name), settings)
        assert texts[name] == greedy(native_stepper(networks[name]), settings)
    assert len({tuple(text) for text in texts.values()}) == 3


def test_sequences_keep_an_adapter_that_is_removed():
    engine, _ = with_adapters(network_of())
    starts = prompts(LENGTHS)
    kept, removed = together(engine, starts), together(engine, starts)
    kept.step([1, 2, 3, 4, 5, 6])
    engine.remove_adapter("a")
    removed.step([1, 2, 3, 4, 5, 6])
    assert (kept.logits == removed.logits).all()
    for refused in (lambda: stepper_of(engine, "a").prefill(starts[:1]), lambda: engine.remove_adapter("a")):
        with pytest.raises(ValueError, match="there is no adapter a"):
            refused()
    engine.add_adapter("a", updates_of(adapted(network_of(), 9, **ADAPTERS["a"])))
    kept.step([1, 2, 3, 4, 5, 6])
    removed.step([1, 2, 3, 4, 5, 6])
    assert (kept.logits == removed.logits).all()


def factors(rank: int = 2, inputs: int = 64, outputs: int = 64) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((rank, inputs), np.float32), np.ones((outputs, rank), np.float32)


HOSTILE = {
    "another layer": ([(3, "q_proj", *factors())], "no q_proj of layer 3"),
    "a negative layer": ([(-1, "q_proj", *factors())], "no q_proj of layer -1"),
    "another linear": ([(0, "lm_head", *factors(outputs=97))], "no lm_head of layer 0"),
    "too many inputs": ([(0, "q_proj", *factors(inputs=65))], r"is \(64, 65\), the model's \(64, 64\)"),
    "too few outputs": ([(1, "k_proj", *factors(outputs=16))], r"is \(16, 64\), the model's \(32, 64\)"),
    "two ranks": ([(0, "q_proj", factors(2)[0], factors(3)[1])], "ranks 2 and 3"),
    "no rank": ([(0, "q_proj", *factors(0))], "ranks 0 and 0"),
    "a huge rank": ([(0, "q_proj", *factors(5000))], "ranks 5000 and 5000"),
    "NaN": ([(0, "q_proj", factors()[0] * np.float32("nan"), factors()[1])], "not finite"),
    "infinite": ([(0, "q_proj", factors()[0], factors()[1] * np.float32("inf"))], "not finite"),
    "twice": ([(0, "q_proj", *factors()), (0, "q_proj", *factors())], "two updates of q_proj"),
}


@pytest.mark.parametrize("fault", list(HOSTILE))
def test_updates_that_do_not_fit_are_refused(fault):
    engine = weights_of(network_of()).engine
    updates, said = HOSTILE[fault]
    with pytest.raises(ValueError, match=said):
        engine.add_adapter("a", updates)
    with pytest.raises(ValueError, match="there is no adapter a"):
        engine.add_sequence(4, adapter="a")
    engine.add_adapter("a", [(0, "q_proj", *factors())])
    with pytest.raises(ValueError, match="there is an adapter a already"):
        engine.add_adapter("a", [(0, "q_proj", *factors())])


def test_a_gate_that_a_model_lacks_has_no_update():
    engine = weights_of(network_of(**GPT2)).engine
    with pytest.raises(ValueError, match="no gate_proj of layer 0"):
        engine.add_adapter("a", [(0, "gate_proj", *factors(outputs=160))])


@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_factors_of_any_size_are_precise(size):
    """Small and large factors whose product is the same: scales in float16 do not limit them."""
    engine, networks = with_adapters(network_in_blocks("Q8_0"))
    scaled = [
        (layer, name, a * np.float32(size), b / np.float32(size)) for layer, name, a, b in updates_of(networks["a"])
    ]
    engine.add_adapter("scaled", scaled)
    logits = []
    for name in ("a", "scaled"):
        stepper = stepper_of(engine, name)
        stepper.prefill([RowStart([5, 6, 7])])
        logits.append(stepper.logits)
    np.testing.assert_allclose(logits[0], logits[1], atol=0.005 * np.abs(logits[0]).max())
