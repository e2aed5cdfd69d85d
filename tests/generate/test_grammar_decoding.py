"""A grammar's texts are the same alone and in a batch, by each stepper, guessed or not; forced tokens cost no pass."""

from __future__ import annotations

import json
import re

import pytest
import torch
from tiny_writers import BYTES, network_for

from lmworks.base.errors import InputError
from lmworks.generate.grammar import Grammar
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import native_stepper
from lmworks.generate.sampling import Rules, SamplingSettings
from lmworks.generate.stepper import Stepper
from lmworks.generate.text import complete, stream
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.kernels.native_module import native_module

jsonschema = pytest.importorskip("jsonschema")

SCHEMA = {
    "type": "object",
    "properties": {
        "the name of it": {"type": "string", "maxLength": 8},
        "the colours of it": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 1},
    },
    "required": ["the name of it", "the colours of it"],
    "additionalProperties": False,
}
GRAMMAR = Grammar.json_schema(SCHEMA)
PROMPTS = [BYTES.encode(text) for text in ("The sky", "Who are you?", "a")]


class Counting(TorchStepper):
    """Counts passes."""

    passes = 0

    def append(self, tokens) -> None:
        self.passes += 1
        super().append(tokens)


def steppers() -> list[Stepper]:
    """A stepper of each kind over the same network."""
    network = network_for(BYTES)
    native = [native_stepper(network)] if native_module() is not None else []
    return [TorchStepper(network), *native]


def texts(stepper: Stepper, prompts=PROMPTS, **settings) -> list[list[int]]:
    options = SamplingSettings(max_tokens=120, **settings)
    return [reply.ids for reply in complete(stepper, BYTES, prompts, options, grammar=GRAMMAR)]


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 3}, {"temperature": 2.0, "top_p": 0.9}])
def test_a_seed_writes_the_same_alone_and_in_a_batch_by_each_stepper(settings):
    wanted = [texts(TorchStepper(network_for(BYTES)), [prompt], **settings)[0] for prompt in PROMPTS]
    for stepper in steppers():
        assert texts(stepper, **settings) == wanted
        assert [texts(stepper, [prompt], **settings)[0] for prompt in PROMPTS] == wanted
    for ids in wanted:
        jsonschema.validate(json.loads(BYTES.decode(ids)), SCHEMA)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 3}])
def test_tokens_one_by_one_are_those_that_were_appended_at_once(settings):
    """With log-probabilities, and where a context may slide, each token is computed by itself."""
    wanted = texts(TorchStepper(network_for(BYTES)), **settings)
    options = SamplingSettings(max_tokens=120, **settings)
    for stepper in steppers():
        replies = complete(stepper, BYTES, PROMPTS, options, None, True, GRAMMAR)
        assert [reply.ids for reply in replies] == wanted
        assert [len(reply.log_probabilities) for reply in replies] == list(map(len, wanted))
        assert texts(stepper, slide=True, **settings) == wanted


def test_forced_tokens_take_no_pass_of_their_own():
    stepper = Counting(network_for(BYTES))
    (ids,) = texts(stepper, PROMPTS[:1])
    forced = len(BYTES.encode('"the name of it": "')) + len(BYTES.encode('", "the colours of it": ["'))
    assert stepper.passes < len(ids) - 0.8 * forced
    together = Counting(network_for(BYTES))
    written = texts(together)
    assert together.passes < max(map(len, written)) - 0.8 * forced


@pytest.mark.skipif(native_module() is None, reason="no native kernels")
def test_guessed_tokens_change_nothing():
    network = network_for(BYTES)
    stepper = native_stepper(network)
    assert isinstance(stepper, NativeStepper)
    for prompt in PROMPTS:
        (wanted,) = texts(stepper, [prompt])
        options = SamplingSettings(max_tokens=120, prompt_lookup=6)
        assert complete(stepper, BYTES, [prompt], options, grammar=GRAMMAR)[0].ids == wanted
        for seed in (0, 1):  # itself, and another model
            draft = native_stepper(network_for(BYTES, seed))
            guessed = stream(stepper, BYTES, prompt, SamplingSettings(max_tokens=120), draft=draft, grammar=GRAMMAR)
            text = "".join(guessed)
            assert guessed.reply is not None
            assert guessed.reply.ids == wanted
            assert text == BYTES.decode(wanted)


def test_the_grammar_wins_over_what_a_publisher_demands():
    """Where its rules ban every token that the grammar allows, and elsewhere not."""
    stepper, options = TorchStepper(network_for(BYTES)), SamplingSettings(max_tokens=9)
    banned = [BYTES.encode(sign)[0] for sign in "ab"]
    for allowed, wanted in (("[ab]!", "[ab]!"), ("[abc]!", "c!")):
        rules = Rules(bad_words_ids=tuple((token,) for token in banned), min_new_tokens=5)
        (reply,) = complete(stepper, BYTES, PROMPTS[:1], options, rules, grammar=Grammar.regex(allowed))
        assert re.fullmatch(wanted, reply.text)
        assert reply.stop_reason == "end"


def test_stop_strings_end_a_text_of_a_grammar():
    options = SamplingSettings(max_tokens=120, stop=['": ["'])
    for stepper in steppers():
        for reply in complete(stepper, BYTES, PROMPTS, options, grammar=GRAMMAR):
            assert reply.stop_reason == "stop"
            assert reply.text.endswith("the colours of it")


def test_beams_are_refused():
    with pytest.raises(InputError, match="beam search keeps to no grammar"):
        texts(TorchStepper(network_for(BYTES)), num_beams=2)


def test_a_network_of_half_width_keeps_to_it():
    stepper = TorchStepper(network_for(BYTES).to(torch.bfloat16))
    for ids in texts(stepper, temperature=1.0):
        jsonschema.validate(json.loads(BYTES.decode(ids)), SCHEMA)
