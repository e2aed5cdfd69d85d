"""Tiny random decoders of ``transformers``, to compare ours with."""

from __future__ import annotations

from typing import Any

TINY: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "llama": {"num_key_value_heads": 4},
    "mistral": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 256, "sliding_window": 5},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 256, "sliding_window": 5},
    "phi3": {"num_key_value_heads": 2},
    "starcoder2": {"num_key_value_heads": 2},
}
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def make_theirs(model_type: str, **changes: Any) -> Any:
    """A tiny model of ``transformers`` in float32; biases and norms are random too, so that every weight tells."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {} if model_type == "gpt2" else SIZES
    output = {"vocab_size": 101, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0} | sizes | TINY[model_type]
    generator = torch.Generator().manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(output | changes)))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model.float().eval()
