"""Whole GGUF files: tiny ones of each architecture, written with the gguf library, and the real SmolLM2."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmworks.base.errors import InputError
from lmworks.families.folder import open_folder, save_folder
from lmworks.families.gguf import open_gguf, read_config, read_tokenizer

TYPES = gguf.GGMLQuantizationType
CLOSE = {"rtol": 0.0, "atol": 1e-4}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def their_name(name: str) -> str:
    """model.layers.1.mlp.up_proj.weight -> blk.1.ffn_up.weight"""
    module, _, kind = name.rpartition(".")
    for start in ("model.layers.", "transformer.h."):
        if module.startswith(start):
            layer, _, inner = module.removeprefix(start).partition(".")
            return f"blk.{layer}.{NAMES[inner]}.{kind}"
    return f"{NAMES[module]}.{kind}"


def paired(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to queries and keys of its llama architecture."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write(path: Path, model: Any, kind: TYPES = TYPES.F32, **more: Any) -> Path:
    """A tiny model of transformers as llama.cpp would store it; matrices in ``kind``."""
    config, name = model.config, model.config.model_type
    writer = gguf.GGUFWriter(path, name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if name == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        if name == "starcoder2":
            writer.add_layer_norm_eps(config.norm_epsilon)
        else:
            writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        if getattr(config, "head_dim", None):
            writer.add_key_length(config.head_dim)
            writer.add_value_length(config.head_dim)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size - 1)] + ["<|im_end|>"])
    writer.add_token_types([1] * (config.vocab_size - 1) + [3])
    writer.add_token_merges([])
    writer.add_eos_token_id(config.vocab_size - 1)
    if name == "phi3":  # without one, transformers takes 32000
        writer.add_pad_token_id(0)
    for key, value in more.items():
        {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)](
            key.replace("__", "."), value
        )
    tied = config.tie_word_embeddings
    for theirs, tensor in model.state_dict().items():
        if theirs == "lm_head.weight" and tied:
            continue
        data = tensor.numpy()
        if name == "gpt2" and ".c_" in theirs and data.ndim == 2:
            data = np.ascontiguousarray(data.T)
        if name == "llama" and (".q_proj." in theirs or ".k_proj." in theirs):
            data = paired(data, config.num_attention_heads if ".q_proj." in theirs else config.num_key_value_heads)
        stored_as = kind if data.ndim == 2 else TYPES.F32
        writer.add_tensor(their_name(theirs), gguf.quantize(data, stored_as), raw_dtype=stored_as)
    for kind_of_text, divisors in getattr(model, "rope_factors", {}).items():
        writer.add_tensor(f"rope_factors_{kind_of_text}.weight", divisors)
    if (factors := getattr(model, "frequencies", None)) is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def ids_of(model: Any) -> torch.Tensor:
    return torch.randint(0, model.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(3))


ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "llama": ("llama", {}),
    "llama-grouped-tied": ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama-biases": ("llama", {"attention_bias": True, "num_key_value_heads": 1, "head_dim": 12}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    "phi3": ("phi3", {"tie_word_embeddings": True}),
    "starcoder2": ("starcoder2", {}),
}


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_every_architecture_gives_their_logits(case: str, theirs: Callable[..., Any], tmp_path: Path) -> None:
    name, changes = ARCHITECTURES[case]
    model = theirs(name, **changes)
    opened = open_gguf(write(tmp_path / "m.gguf", model))
    ids = ids_of(model)
    torch.testing.assert_close(opened.network(ids).logits, model(ids).logits, **CLOSE)
    assert opened.hf_config["model_type"] == name
    assert opened.config.tie_word_embeddings == model.config.tie_word_embeddings
    # and as a folder, there and here
    path = save_folder(
        tmp_path / "folder",
        opened.network,
        opened.config,
        opened.family,
        opened.tokenizer,
        opened.hf_config,
        opened.generation,
    )
    there = AutoModelForCausalLM.from_pretrained(path)
    torch.testing.assert_close(there(ids).logits, model(ids).logits, **CLOSE)
    assert there.generation_config.eos_token_id == model.config.vocab_size - 1
    again = open_folder(path)
    assert again.config == opened.config
    assert again.tokenizer is not None
    assert again.tokenizer.end_ids == {model.config.vocab_size - 1}


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantized_models_are_the_model_of_the_widened_weights(
    kind: str, theirs: Callable[..., Any], tmp_path: Path
) -> None:
    model = theirs("llama", num_key_value_heads=2, intermediate_size=64)
    opened = open_gguf(write(tmp_path / "m.gguf", model, TYPES[kind]))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                widened = gguf.dequantize(gguf.quantize(weight.numpy(), TYPES[kind]), TYPES[kind])
                weight.copy_(torch.from_numpy(widened))
    ids = ids_of(model)
    torch.testing.assert_close(opened.network(ids).logits, model(ids).logits, **CLOSE)


def test_scalings_of_rotary_positions(theirs: Callable[..., Any], tmp_path: Path) -> None:
    linear = theirs("llama", rope_scaling={"rope_type": "linear", "factor": 2.5})
    output = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 2.5}
    ids = ids_of(linear)
    opened = open_gguf(write(tmp_path / "linear.gguf", linear, **output))
    torch.testing.assert_close(opened.network(ids).logits, linear(ids).logits, **CLOSE)

    yarn = theirs("qwen2", rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16})
    output = {"qwen2__rope__scaling__type": "yarn", "qwen2__rope__scaling__factor": 4.0}
    path = write(tmp_path / "yarn.gguf", yarn, **output, qwen2__rope__scaling__original_context_length=16)
    torch.testing.assert_close(open_gguf(path).network(ids).logits, yarn(ids).logits, **CLOSE)


def test_llama3_scaling_is_found_from_its_frequencies(theirs: Callable[..., Any], tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    changes = {"head_dim": 32, "rope_theta": 500_000.0, "max_position_embeddings": 131_072}
    model = theirs("llama", rope_scaling=scaling, **changes)
    plain = 1.0 / 500_000.0 ** (torch.arange(0, 32, 2) / 32)
    model.frequencies = (plain / model.model.rotary_emb.inv_freq).numpy()
    opened = open_gguf(write(tmp_path / "m.gguf", model))
    assert opened.config.rope_scaling is not None
    assert opened.config.rope_scaling.original_max_position_embeddings == 8192
    ids = ids_of(model)
    torch.testing.assert_close(opened.network(ids).logits, model(ids).logits, **CLOSE)
    model.frequencies = np.linspace(1, 8, 16, dtype=np.float32)
    with pytest.raises(InputError, match=r"rope_freqs\.weight"):
        open_gguf(write(tmp_path / "strange.gguf", model))


def test_a_head_stored_twice_is_tied(theirs: Callable[..., Any], tmp_path: Path) -> None:
    model = theirs("gpt2", tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.transformer.wte.weight)
    assert open_gguf(write(tmp_path / "m.gguf", model)).config.tie_word_embeddings


def test_what_is_not_computed_is_refused_by_name(theirs: Callable[..., Any], tmp_path: Path) -> None:
    model = theirs("llama")
    for key, value in {
        "llama__expert_count": 8,
        "llama__logit_scale": 0.5,
        "llama__rope__scaling__type": "longrope",
        "llama__rope__dimension_count": 4,
    }.items():
        with pytest.raises(InputError, match=re.escape(key.replace("__", "."))):
            open_gguf(write(tmp_path / "m.gguf", model, **{key: value}))
    model.config.model_type = "mistral"
    with pytest.raises(InputError, match="'mistral'"):
        open_gguf(write(tmp_path / "m.gguf", model))


def test_tokenizer_and_config_without_weights(smollm2: Path) -> None:
    tokenizer = read_tokenizer(smollm2)
    family, hf_config = read_config(smollm2)
    assert (family.name, hf_config["num_hidden_layers"], hf_config["rms_norm_eps"]) == ("llama", 30, 1e-5)
    piece = {role: tokenizer.core.id_to_token(getattr(tokenizer, f"{role}_id")) for role in ("bos", "eos", "pad")}
    assert piece == {"bos": "<|im_start|>", "eos": "<|im_end|>", "pad": "<|im_end|>"}
    assert tokenizer.eos_id == 2
    assert not tokenizer.adds_bos
    assert "<|im_start|>" in (tokenizer.chat_template or "")


def test_the_real_model_continues_sensibly(smollm2: Path) -> None:
    opened = open_gguf(smollm2)
    tokenizer = opened.tokenizer
    assert tokenizer is not None
    for prompt, expected in (("The sky is", " a the blue"), ("The capital of France is", " Paris"), ("2 + 2 =", " ")):
        with torch.no_grad():
            best = opened.network(torch.tensor([tokenizer.encode(prompt)])).logits[0, -1].argmax()
        assert tokenizer.decode([int(best)]) in expected
    assert opened.generation["eos_token_id"][0] == 2


@pytest.mark.slow
def test_the_real_model_answers_as_in_transformers(smollm2: Path, tmp_path: Path) -> None:
    """Greedily, on the folder that we save: the same prompts, logits and tokens."""
    opened = open_gguf(smollm2)
    tokenizer = opened.tokenizer
    assert tokenizer is not None
    path = save_folder(
        tmp_path / "smollm2",
        opened.network,
        opened.config,
        opened.family,
        tokenizer,
        opened.hf_config,
        opened.generation,
    )
    there, their_tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert there.generation_config.eos_token_id == opened.generation["eos_token_id"]
    for topic in ("the sky", "tea", "a number"):
        messages = [{"role": "user", "content": f"Tell me one thing about {topic}."}]
        output = their_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        text = their_tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert tokenizer.encode(text) == list(output["input_ids"])
        ids = torch.tensor([output["input_ids"]])
        with torch.no_grad():
            theirs = there.generate(ids, max_new_tokens=30, do_sample=False)
            ours = opened.network(theirs).logits
            torch.testing.assert_close(ours, there(theirs).logits, rtol=0, atol=1e-3)
        best = ours[0, ids.shape[1] - 1 : -1].argmax(-1)
        assert best.tolist() == theirs[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"general__type": "adapter", "adapter__type": "lora"}, "adapter"),
        ({"general__type": "mmproj"}, "projector"),
        ({"general__type": "imatrix"}, "imatrix"),
    ],
)
def test_files_that_are_no_model_are_said_as_what_they_are(
    keys: dict[str, str], words: str, theirs: Callable[..., Any], tmp_path: Path
) -> None:
    path = write(tmp_path / "m.gguf", theirs("llama"), **keys)
    with pytest.raises(InputError, match=words):
        open_gguf(path)
