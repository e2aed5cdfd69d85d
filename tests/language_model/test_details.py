"""Why a text ended, what it used, and how likely its tokens were; a context that slides."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError
from lmworks.language_model.input_format import InputFormat


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory) -> lmworks.LanguageModel:
    return lmworks.load(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


MESSAGES = [{"role": "user", "content": "What is 3 and 3?"}]


def test_usage_and_the_reason_of_the_end(model):
    reply = model.chat(MESSAGES, details=True, max_tokens=6)
    assert (reply.stop_reason, reply.usage.completion_tokens, len(reply.ids)) == ("length", 6, 6)
    assert reply.text == model.chat(MESSAGES, max_tokens=6)
    stream = model.chat(MESSAGES, stream=True, max_tokens=6)
    assert stream.reply is None
    assert "".join(stream) == reply.text
    assert stream.reply == reply
    prompt = "ab" * 20
    size = len(model.tokenizer.encode(prompt, special=True))
    full = model.generate([prompt, "a"], details=True, max_tokens=1000)
    assert [reply.stop_reason for reply in full] == ["context", "context"]
    assert full[0].usage.prompt_tokens == size
    usage = full[0].usage
    assert usage.prompt_tokens + usage.completion_tokens == model.config.max_position_embeddings
    stop = reply.text[2:4]
    stopped = model.chat(MESSAGES, details=True, max_tokens=6, stop=[stop])
    assert (stopped.stop_reason, stopped.text) == ("stop", reply.text[: reply.text.index(stop)])


def test_an_end_token_is_a_reason_and_a_token(model):
    end = model.generate("abc", details=True, max_tokens=4).ids[2]
    model.tokenizer.end_ids.add(end)
    try:
        reply = model.generate("abc", details=True, max_tokens=4)
    finally:
        model.tokenizer.end_ids.discard(end)
    assert (reply.stop_reason, reply.ids[-1]) == ("end", end)
    assert reply.usage.completion_tokens == len(reply.ids)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "seed": 3, "repetition_penalty": 1.3}])
def test_log_probabilities_are_those_of_the_whole_text(model, sampling):
    reply = model.generate("abc", details=True, log_probabilities=True, max_tokens=5, **sampling)
    prompt = model.tokenizer.encode("abc", special=True)
    with torch.no_grad():
        logits = model.network(torch.tensor([[*prompt, *reply.ids]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    wanted = logits.gather(-1, torch.tensor(reply.ids)[:, None])[:, 0].tolist()
    assert reply.log_probabilities == pytest.approx(wanted, abs=1e-4)
    assert all(math.isfinite(value) and value <= 0 for value in reply.log_probabilities)
    with pytest.raises(InputError, match="num_beams to 1"):
        model.generate("abc", log_probabilities=True, num_beams=2)


def test_a_model_that_was_trained_on_windows_slides(model, tmp_path: Path):
    folder = model.save(tmp_path / "windows")
    InputFormat(task="causal", kind="text", slide=True).save(folder)
    opened = lmworks.load(folder)
    size = opened.config.max_position_embeddings + 40
    reply = opened.generate("abc", details=True, max_tokens=size)
    assert (reply.stop_reason, len(reply.ids)) == ("length", size)
    assert opened.generate("abc", details=True, max_tokens=size, slide=False).stop_reason == "context"
    assert model.generate("abc", details=True, max_tokens=size, slide=True).ids == reply.ids
    assert opened.generate("abc", num_beams=2, max_tokens=3)
