"""Guessed tokens change nothing but the number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_model import save_tiny

from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.generate.decode import decode
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import native_stepper, weights_of
from lmworks.generate.sampling import MOST_GUESSES, Rules, SamplingSettings
from lmworks.generate.speculative import DraftModel, Guesser, PromptLookup, decode_speculatively
from lmworks.generate.stepper import ExtensibleStepper, RowStart
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.kernels.native_module import native_module
from lmworks.language_model.opening import open_saved_model
from lmworks.model.config import ModelConfig
from lmworks.model.storage import BlockStorage
from lmworks.model.stored_layers import store
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

VOCABULARY, CONTEXT = 40, 96
REPEATING = [5, 6, 7, 8, 9, 5, 6, 7, 8, 9, 5, 6, 7]


def network_of(seed: int = 0, kind: str | None = None) -> Transformer:
    """A random decoder; with few tokens, its texts soon repeat themselves."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": CONTEXT}
    config = ModelConfig.model_validate({**sizes, "num_hidden_layers": 2, "num_attention_heads": 4})
    network = Transformer(config).eval().requires_grad_(False)
    for weight in network.parameters():
        weight += torch.randn_like(weight) * (0.2 if weight.ndim > 1 else 0.1)
    if kind is not None:
        quants = pytest.importorskip("gguf.quants")
        from gguf.constants import GGMLQuantizationType

        for name, linear in list(named_linears(network)):
            blocks = quants.quantize(linear.weight.numpy(), GGMLQuantizationType[kind])
            store(network, name, BlockStorage(torch.from_numpy(blocks), kind))
    return network


class Oracle:
    """Guesses from a text that is known."""

    def __init__(self, text: Sequence[int], count: int = 4) -> None:
        self.text, self.count = list(text), count

    def guess(self, ids: Sequence[int]) -> list[int]:
        return self.text[len(ids) : len(ids) + self.count]


class Counting(NativeStepper):
    """Counts the steps."""

    steps = 0

    def _compute(self, *arguments: Any) -> Any:
        self.steps += 1
        return super()._compute(*arguments)


def counting(network: Transformer) -> Counting:
    return Counting(weights_of(network).engine, VOCABULARY, network.config.max_position_embeddings)


def plainly(network: Transformer, prompt: Sequence[int], settings: SamplingSettings, **more: Any) -> list[Any]:
    return [token for (token,) in decode(native_stepper(network), [prompt], settings, more.pop("ends", set()), **more)]


def guessed(
    stepper: Any, prompt: Sequence[int], settings: SamplingSettings, guesser: Guesser, **more: Any
) -> list[Any]:
    ends = more.pop("ends", set())
    return [token for (token,) in decode_speculatively(stepper, prompt, settings, ends, guesser, **more)]


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "one token": ({"max_tokens": 1}, {}),
    "until the context is full": ({"max_tokens": 500}, {}),
    "repetition penalty": ({"repetition_penalty": 1.5}, {}),
    "no repeated n-grams": ({"no_repeat_ngram_size": 3}, {}),
    "ends": ({}, {"ends": set(range(0, VOCABULARY, 5))}),
    "rules": (
        {},
        {"ends": {1, 2, 3}, "rules": Rules(min_new_tokens=9, bad_words_ids=((4,), (5, 6)), forced_eos_token_id=3)},
    ),
    "likelihoods": ({}, {"with_log_probabilities": True}),
}


@pytest.mark.parametrize("kind", [None, "Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("case", CASES)
def test_the_text_is_that_of_greedy_decoding(case: str, kind: str | None) -> None:
    settings, more = CASES[case]
    settings = SamplingSettings(**{"max_tokens": 60, **settings})
    network = network_of(kind=kind)
    for prompt in (REPEATING, [1], list(range(3, 33))):
        expected = plainly(network, prompt, settings, **more)
        text = [*prompt, *(token.id for token in expected)]
        wrong = [(token + 1) % VOCABULARY for token in text]
        half = [token if place % 3 else 0 for place, token in enumerate(text)]
        guessers = [PromptLookup(6), PromptLookup(MOST_GUESSES), Oracle(text), Oracle(wrong), Oracle(half)]
        guessers.append(DraftModel(native_stepper(network_of(seed=1))))
        for guesser in guessers:
            assert guessed(native_stepper(network), prompt, settings, guesser, **more) == expected


def test_right_guesses_save_steps_and_wrong_ones_cost_none() -> None:
    network, settings = network_of(), SamplingSettings(max_tokens=50)
    expected = [token.id for token in plainly(network, REPEATING, settings)]
    text = [*REPEATING, *expected]
    right, wrong, drafted = counting(network), counting(network), counting(network)
    guessed(right, REPEATING, settings, Oracle(text))
    guessed(wrong, REPEATING, settings, Oracle([(token + 1) % VOCABULARY for token in text]))
    guessed(drafted, REPEATING, settings, DraftModel(native_stepper(network)))
    assert right.steps == 1 + 10  # the prompt's, and one for each five tokens but the first
    assert wrong.steps == 50
    assert drafted.steps == 1 + 9


def test_the_last_occurrence_of_the_longest_match_is_guessed_from() -> None:
    lookup = PromptLookup(3)
    assert lookup.guess([1, 2, 3]) == []
    assert lookup.guess([1, 2, 3, 9, 2, 3]) == [9, 2, 3]
    assert lookup.guess([1, 2, 3, 9, 2, 3, 7, 8, 2, 3]) == [7, 8, 2]
    assert lookup.guess([1, 2, 3, 9, 2, 3, 7, 8, 2, 3, 9, 2, 3]) == [7, 8, 2]
    assert lookup.guess([1, 2, 3, 9, 2, 3, 7, 8, 2, 3, 9, 2, 3, 7]) == [8, 2, 3]


def test_a_draft_model_goes_on_from_where_its_guesses_were_right() -> None:
    network = network_of()
    text = [*REPEATING, *(token.id for token in plainly(network, REPEATING, SamplingSettings(max_tokens=30)))]
    stepper = counting(network)
    draft, length = DraftModel(stepper, 4), len(REPEATING)
    assert draft.guess(text[:length]) == text[length : length + 4]
    assert draft.guess(text[: length + 3]) == text[length + 3 : length + 7]
    other = [*text[: length + 4], (text[length + 4] + 1) % VOCABULARY]
    alone = [token.id for token in plainly(network, other, SamplingSettings(max_tokens=4))]
    assert draft.guess(other) == alone
    full = [*text, *text, *text][: CONTEXT - 2]
    assert draft.guess(full) == []


def test_tokens_that_are_taken_back_leave_no_trace() -> None:
    network = network_of()
    again, fresh = native_stepper(network), native_stepper(network)
    again.prefill([RowStart([1, 2, 3])])
    again.extend(list(range(20)))
    again.truncate(2)
    assert again.lengths == [2]
    fresh.prefill([RowStart([1, 2])])
    assert (again.extend([7, 8]) == fresh.extend([7, 8])).all()
    with pytest.raises(ValueError, match="fewer tokens"):
        again.truncate(99)


def test_what_is_not_greedy_decoding_of_one_prompt_is_refused(tmp_path) -> None:
    network = network_of()
    assert isinstance(native_stepper(network), ExtensibleStepper)
    for changes, place in (
        ({"temperature": 0.5}, "temperature"),
        ({"slide": True}, "slide"),
        ({"num_beams": 2}, "beams"),
    ):
        with pytest.raises(InputError, match=place):
            guessed(native_stepper(network), [1], SamplingSettings(**changes), PromptLookup(2))
        with pytest.raises(InputError, match="prompt_lookup"):
            build(SamplingSettings, {"prompt_lookup": 4, **changes})
    with pytest.raises(InputError, match="native engine"):
        guessed(TorchStepper(network), [1], SamplingSettings(), PromptLookup(2))
    model = open_saved_model(save_tiny(tmp_path / "model")).prepare()
    with pytest.raises(InputError, match="one prompt at a time, not for 2"):
        model.generate(["The", "A"], prompt_lookup=4)
    with pytest.raises(InputError, match="single text"):
        model.generate(["The", "A"], draft=model)
    with pytest.raises(InputError, match="leave prompt_lookup out"):
        model.generate("The", draft=model, prompt_lookup=4)
    with pytest.raises(InputError, match="native engine"):
        model.generate("The", draft=open_saved_model(tmp_path / "model"))


def test_a_model_writes_the_same_text_with_guesses(tmp_path) -> None:
    model = open_saved_model(save_tiny(tmp_path / "model")).prepare()
    draft = open_saved_model(save_tiny(tmp_path / "draft", seed=1)).prepare()
    expected = model.generate("The sky is the sky", max_tokens=40, details=True)
    assert model.generate("The sky is the sky", max_tokens=40, prompt_lookup=8, details=True) == expected
    assert model.generate("The sky is the sky", max_tokens=40, draft=draft, details=True) == expected
    draft.tokenizer.add_tokens(["<more>"])
    with pytest.raises(InputError, match="another vocabulary"):
        model.generate("The sky", draft=draft)
