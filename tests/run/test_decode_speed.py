"""The measured speed of decoding: as many tokens as are asked for; what is not measured is said with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import save_tiny

import lmworks
from lmworks.adapt.adapters import adapters
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.kernels.native_module import native_module
from lmworks.language_model.export import export_gguf
from lmworks.run import decode_speed
from lmworks.run.decode_speed import NEW_TOKENS, PROMPT_TOKENS, DecodeSpeed, line_of, measure_decoding

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> lmworks.LanguageModel:
    return lmworks.load(save_tiny(tmp_path / "tiny", intermediate_size=64))


def test_weights_are_decoded_with_as_they_are_stored(model: lmworks.LanguageModel, tmp_path: Path) -> None:
    export_gguf(model, tmp_path / "m.gguf", "q4")
    quantized = lmworks.load(tmp_path / "m.gguf", storage="stored")
    speeds = [measure_decoding(each.network) for each in (model, quantized)]
    assert [speed.formats for speed in speeds] == [("float32",), ("Q4_0", "Q8_0")]
    assert all(speed.tokens == NEW_TOKENS for speed in speeds)
    line = line_of(*speeds)
    assert "tokens/s (float32) -> " in line
    assert "tokens/s (Q4_0, Q8_0): " in line
    assert f"medians of {NEW_TOKENS} tokens" in line


def test_an_adapter_is_merged_meanwhile(model: lmworks.LanguageModel) -> None:
    LoRA(LoRASettings(rank=2, target_modules=["q_proj"])).apply(model.network)
    ids = torch.arange(12)[None]
    before = model.network(ids).logits
    assert measure_decoding(model.network).tokens == NEW_TOKENS
    assert len(list(adapters(model.network))) == 2
    assert torch.equal(model.network(ids).logits, before)


def test_time_and_context_bound_the_tokens(
    model: lmworks.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = lmworks.load(save_tiny(tmp_path / "short", context=PROMPT_TOKENS + 5))
    assert measure_decoding(short.network).tokens == 5
    monkeypatch.setattr(decode_speed, "SECONDS", 0.0)
    assert measure_decoding(model.network).tokens == 1


def test_what_is_not_measured_is_said_with_the_reason(
    model: lmworks.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "tiny" / "config.json"
    config.write_text(
        config.read_text().replace('"rope_scaling": null', '"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}')
    )
    dynamic = measure_decoding(lmworks.load(tmp_path / "tiny").network)
    assert dynamic.tokens_per_second is None
    assert line_of(DecodeSpeed(10.0, 64, ("float32",)), dynamic) == (
        "decode speed not measured: the native engine does not compute the model: "
        "its positions depend on the length of the text"
    )
    disturbed = line_of(DecodeSpeed(10.0, 64, ("float32",)), DecodeSpeed(20.0, 64, ("Q4_0",), share=0.6))
    assert "2.00x" in disturbed
    assert disturbed.endswith("disturbed by other programs, which had 40% of the processor")
    tiny = lmworks.load(save_tiny(tmp_path / "narrow", context=PROMPT_TOKENS))
    assert "no room" in measure_decoding(tiny.network).fault
    monkeypatch.setattr(decode_speed, "memory", lambda: (1000, 1000))
    assert "1 kB of memory are free" in measure_decoding(model.network).fault
