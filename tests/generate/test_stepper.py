"""Rows that join and leave a running batch get what they get alone; any implementation of the interface serves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from lmworks.generate.beam import search
from lmworks.generate.decode import decode
from lmworks.generate.sampling import SamplingSettings, as_array, log_probabilities
from lmworks.generate.stepper import RESERVE, RowStart, Stepper, Usage
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.model.config import ModelConfig, RopeScaling
from lmworks.model.transformer import Transformer

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
BOTH = {"architecture": "encoder-decoder", "num_decoder_layers": 2, "max_position_embeddings": 64}
ONE_WIDTH = {"intermediate_size": 32, "num_attention_heads": 1}
LONGROPE = RopeScaling(
    kind="longrope", factor=4.0, original_max_position_embeddings=10, short_factor=(1.0,) * 4, long_factor=(3.0,) * 4
)
MODELS: dict[str, dict] = {
    "rotary, grouped": {"num_key_value_heads": 2, "max_position_embeddings": 64},
    "learned": {"positions": "learned", "norm": "layer", "max_position_embeddings": 64},
    "sliding window": {"sliding_window": 4, "max_position_embeddings": 64},
    "longrope": {"rope_scaling": LONGROPE, "max_position_embeddings": 64},
    "dynamic": {"rope_scaling": RopeScaling(kind="dynamic", factor=2.0), "max_position_embeddings": 12},
    "soft caps": {"attention_softcap": 5.0, "logit_softcap": 5.0, "max_position_embeddings": 64},
    "rnn": {"layer": "rnn", "max_position_embeddings": 64, **ONE_WIDTH},
    "gru": {"layer": "gru", "max_position_embeddings": 64, **ONE_WIDTH},
    "lstm": {"layer": "lstm", "max_position_embeddings": 64, **ONE_WIDTH},
    "encoder-decoder": {"positions": "sinusoidal", **BOTH},
    "encoder-decoder, relative": {"positions": "relative", **BOTH},
}
PROMPTS = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9, 10], [11, 12], [20, 21, 22, 23, 24, 25]]
JOINS = [0, 0, 2, 5, 7]  # the step at which each prompt comes
STEPS = 12


@pytest.fixture(name="network", scope="module", params=MODELS)
def _network(request) -> Transformer:
    torch.manual_seed(3)
    network = Transformer(ModelConfig(**{**SIZES, **MODELS[request.param]})).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network


def as_prompt(stepper: Stepper, ids: list[int]) -> RowStart:
    return RowStart([1], ids) if stepper.has_encoder else RowStart(ids)


def alone(network: Transformer, ids: list[int], steps: int = STEPS) -> tuple[list[int], np.ndarray]:
    """The likeliest ids, and all logits (steps, V)."""
    stepper = TorchStepper(network)
    stepper.prefill([as_prompt(stepper, ids)])
    tokens, rows = [], []
    for _ in range(steps):
        rows.append(stepper.logits[0].numpy().copy())
        tokens.append(int(rows[-1].argmax()))
        stepper.step([tokens[-1]])
    return tokens, np.stack(rows)


def test_rows_that_join_and_leave_get_what_they_get_alone(network):
    """Every row writes STEPS tokens; one comes while others run, and leaves before them."""
    stepper = TorchStepper(network)
    running: list[int] = []
    tokens: list[list[int]] = [[] for _ in PROMPTS]
    logits: list[list[np.ndarray]] = [[] for _ in PROMPTS]
    for step in range(STEPS + max(JOINS)):
        new = [row for row, begin in enumerate(JOINS) if begin == step]
        stepper.add([as_prompt(stepper, PROMPTS[row]) for row in new], reserve=2)
        running += new
        for row, values in zip(running, stepper.logits, strict=True):
            logits[row].append(values.numpy().copy())
            tokens[row].append(int(values.argmax()))
        going_on = [place for place, row in enumerate(running) if len(tokens[row]) < STEPS]
        stepper.keep(going_on)
        running = [running[place] for place in going_on]
        if running:
            stepper.step([tokens[row][-1] for row in running])
            begun = [1 if stepper.has_encoder else len(PROMPTS[row]) for row in running]
            assert stepper.lengths == [size + len(tokens[row]) for size, row in zip(begun, running, strict=True)]
    assert not stepper.lengths
    for prompt, written, values in zip(PROMPTS, tokens, logits, strict=True):
        wanted, wanted_values = alone(network, prompt)
        assert written == wanted
        np.testing.assert_allclose(np.stack(values), wanted_values, atol=2e-4, rtol=1e-4)
    sources = sum(map(len, PROMPTS)) + (len(PROMPTS) if stepper.has_encoder else 0)
    assert stepper.usage == Usage(sources, len(PROMPTS) * (STEPS - 1))


def test_rows_are_kept_in_any_order_and_more_than_once(network):
    stepper = TorchStepper(network)
    stepper.prefill([as_prompt(stepper, prompt) for prompt in PROMPTS[:3]])
    first = stepper.logits.argmax(-1).tolist()
    order = [2, 0, 2]
    stepper.keep(order)
    stepper.step([first[row] for row in order])
    again = stepper.logits
    for place, row in enumerate(order):
        wanted = alone(network, PROMPTS[row], 2)[1][1]
        np.testing.assert_allclose(again[place].numpy(), wanted, atol=2e-4, rtol=1e-4)
    stepper.keep([1, 1, 0])
    np.testing.assert_array_equal(stepper.logits.numpy(), again[[1, 1, 0]].numpy())
    stepper.prefill([as_prompt(stepper, PROMPTS[1])])
    np.testing.assert_allclose(stepper.logits[0].numpy(), alone(network, PROMPTS[1], 1)[1][0], atol=2e-4, rtol=1e-4)


def test_several_tokens_at_once_give_what_they_give_one_by_one(network):
    """Rows get different numbers of tokens; afterwards single ones follow, and a row leaves."""
    added = [[7, 8, 9], [4], [30, 31]]
    stepper = TorchStepper(network)
    stepper.prefill([as_prompt(stepper, prompt) for prompt in PROMPTS[:3]])
    stepper.append(added)
    appended = stepper.logits
    assert stepper.usage.completion_tokens == 6
    stepper.step([1, 2, 3])
    stepper.keep([2, 0])
    stepper.append([[11], [12, 13]])
    following = stepper.logits
    assert stepper.lengths == [len(PROMPTS[2]) + 4, len(PROMPTS[0]) + 6] or stepper.has_encoder
    last = {0: [1, 12, 13], 2: [3, 11]}
    for row, tokens in enumerate(added):
        alone = TorchStepper(network)
        alone.prefill([as_prompt(alone, PROMPTS[row])])
        for token in tokens:
            alone.step([token])
        np.testing.assert_allclose(appended[row].numpy(), alone.logits[0].numpy(), atol=2e-4, rtol=1e-4)
        for token in last.get(row, ()):
            alone.step([token])
        if row in last:
            place = [2, 0].index(row)
            np.testing.assert_allclose(following[place].numpy(), alone.logits[0].numpy(), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("layer", ["rnn", "gru", "lstm"])
def test_the_state_of_a_recurrent_network_is_what_reading_the_whole_text_gives(layer: str) -> None:
    torch.manual_seed(3)
    network = Transformer(ModelConfig(**{**SIZES, **MODELS[layer]})).eval()
    tokens, logits = alone(network, PROMPTS[2], 80)  # further than the windows of training
    with torch.no_grad():
        whole = network(torch.tensor([PROMPTS[2] + tokens])).logits[0, len(PROMPTS[2]) - 1 : -1]
    np.testing.assert_allclose(logits, whole.numpy(), atol=1e-5, rtol=1e-4)
    stepper = TorchStepper(network)
    stepper.prefill([RowStart(ids) for ids in PROMPTS])
    assert stepper._cache is not None
    held = [part.shape for state in stepper._cache.states for part in state.parts]
    assert held == [(len(PROMPTS), 32)] * (2 if layer != "lstm" else 4)  # however long the texts
    assert stepper._cache.layers == []


def test_once_a_long_row_has_left_its_columns_and_its_masks_go_with_the_next_that_joins():
    torch.manual_seed(3)
    network = Transformer(ModelConfig(**{**SIZES, **MODELS["learned"]})).eval()
    stepper = TorchStepper(network)
    stepper.prefill([RowStart(PROMPTS[2]), RowStart(PROMPTS[0])])
    stepper.keep([1])
    stepper.add([RowStart([7, 8, 9])])
    assert stepper._cache is not None
    assert (stepper._cache.length, stepper._cache.segments) == (3, None)


class Bigrams:
    """Logits of the next token by a table of the last one: another implementation, in NumPy."""

    vocab_size, context, has_encoder = 16, None, False

    def __init__(self) -> None:
        self.table = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
        self.rows: list[list[int]] = []
        self.usage = Usage()

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.rows]

    @property
    def logits(self) -> np.ndarray:
        return self.table[[row[-1] for row in self.rows]]

    def prefill(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        self.rows = []
        self.add(prompts)

    def add(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        self.rows += [list(prompt.ids) for prompt in prompts]
        self.usage.prompt_tokens += sum(len(prompt.ids) for prompt in prompts)

    def step(self, tokens: Sequence[int]) -> None:
        self.append([[token] for token in tokens])

    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        for row, added in zip(self.rows, tokens, strict=True):
            row.extend(added)
        self.usage.completion_tokens += sum(map(len, tokens))

    def keep(self, rows: Sequence[int]) -> None:
        self.rows = [list(self.rows[row]) for row in rows]


def test_decoding_and_beams_ask_nothing_but_the_interface():
    stepper: Stepper = Bigrams()
    table = torch.log_softmax(torch.from_numpy(stepper.table), -1)
    steps = list(decode(stepper, [[3], [5, 2]], SamplingSettings(max_tokens=4), set(), with_log_probabilities=True))
    for row, last in enumerate((3, 2)):
        for step in steps:
            assert step[row].id == int(table[last].argmax())
            assert step[row].log_probability == pytest.approx(float(table[last].max()))
            last = step[row].id
    assert stepper.usage == Usage(3, 6)
    best = search(stepper, [[3]], SamplingSettings(num_beams=40, max_tokens=2, length_penalty=0.0), set())[0][0]
    both = table[3][:, None] + table
    assert best.log_probability == pytest.approx(float(both.max()))
    assert best.ids == [int(both.argmax()) // 16, int(both.argmax()) % 16]


def test_log_probabilities_are_the_models_own():
    logits = as_array(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.bfloat16))
    assert log_probabilities(logits, [2, 0]) == pytest.approx([-0.407606, -1.098612], abs=1e-5)
