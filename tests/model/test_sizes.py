"""What sizes says from a config alone equals what the built model has and does, and what was published."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from tiny_families import CASES
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lmworks.families.registry import family_of
from lmworks.model import attention, sizes
from lmworks.model.cache import Cache
from lmworks.model.config import ModelConfig
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer

SMALL = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
SMALL |= {"num_attention_heads": 4, "max_position_embeddings": 32}
HEADED = {"architecture": "encoder", "positions": "learned", "norm": "layer", "norm_position": "post", "gated": False}
HEADED |= {"embedding_norm": True, "type_vocab_size": 2, "head_transform": True, "head_bias": True, "pooler": True}
BOTH = {"architecture": "encoder-decoder", "num_decoder_layers": 2}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "untied": {"num_key_value_heads": 1, "tie_word_embeddings": False},
    "qwen": {"qkv_bias": True, "qk_norm": True, "head_dim": 8},
    "gpt2": {"positions": "learned", "norm": "layer", "gated": False, "activation": "gelu_tanh"}
    | {"qkv_bias": True, "output_bias": True, "mlp_bias": True},
    "gemma": {"norm": "rms_offset", "norm_position": "both", "sliding_window": 4, "attention_softcap": 5.0},
    "bert": HEADED
    | {"heads": [{"name": "next_sentence", "kind": "pooled", "size": 2}, {"name": "tag", "kind": "tokens", "size": 5}]},
    "albert": HEADED | {"embedding_size": 8, "num_layer_groups": 2},
    "bare": HEADED | {"language_head": False},
    "marian": BOTH | {"positions": "sinusoidal_halves", "norm": "layer", "norm_position": "post", "gated": False},
    "bart": BOTH | {"positions": "learned", "position_offset": 2, "embedding_norm": True, "head_bias": True},
    "t5": BOTH | {"positions": "relative", "relative_buckets": 8, "head_dim": 10, "tie_word_embeddings": False},
    "both": BOTH
    | {"num_layer_groups": 1, "positions": "sinusoidal", "qk_norm": True, "embedding_size": 8, "head_transform": True},
}
ENCODERS, ENCODER_DECODERS = ("bert", "albert", "bare"), ("marian", "bart", "t5", "both")


def _config(name: str) -> ModelConfig:
    return ModelConfig(**(SMALL | CONFIGS[name]))


def _of_family(name: str) -> ModelConfig:
    """The config of a tiny model of transformers, which is not built."""
    case = CASES[name]
    config = getattr(transformers, case.architecture).config_class(vocab_size=101, **(case.sizes | case.changes))
    theirs = config.to_dict() | {"architectures": [case.architecture]}
    return family_of(theirs).read_config(theirs)


def _compare(config: ModelConfig) -> None:
    with torch.device("meta"):
        network = Transformer(config)
    by_name = {name: weight.numel() for name, weight in network.named_parameters()}
    computed = sizes.parameters(config)
    parts = {
        "embed_tokens": ("embed_tokens",),
        "embed_types": ("embed_types",),
        "embed_positions": ("embed_positions", "relative_bias"),
        "embed_project": ("embed_project",),
        "attention": ("_attn.q_proj", "_attn.k_proj", "_attn.v_proj", "_attn.o_proj"),
        "feedforward": (".mlp.",),
        "norms": ("norm",),
        "lm_head": ("lm_head", "head_bias", "head_transform.dense"),
        "pooler": ("pooler",),
        "heads": ("heads.",),
    }
    for part, patterns in parts.items():
        assert computed[part] == sum(
            count for name, count in by_name.items() if any(pattern in name for pattern in patterns)
        ), part
    assert (
        computed["total"] == sum(by_name.values()) == sum(count for part, count in computed.items() if part != "total")
    )
    real = {
        name: (matrix.in_features, matrix.out_features, matrix.bias is not None)
        for name, matrix in named_linears(network)
        if "layers." in name
    }
    assert {m.name: (m.inputs, m.outputs, m.bias) for m in sizes.linears(config)} == real


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_model(name: str) -> None:
    _compare(_config(name))


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_those_of_every_family(name: str) -> None:
    _compare(_of_family(name))


PUBLISHED: dict[str, tuple[str, dict[str, Any], int, int]] = {  # class, config, millions, and what they are rounded to
    "BERT-base": ("BertForPreTraining", {}, 110, 1),
    "BERT-large": (
        "BertForPreTraining",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        340,
        10,
    ),
    "DistilBERT": ("DistilBertModel", {}, 66, 1),
    "RoBERTa-large": (
        "RobertaForMaskedLM",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
        | {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
        355,
        1,
    ),
    "ALBERT-base": (
        "AlbertModel",
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
        12,
        1,
    ),
    "GPT-2": ("GPT2LMHeadModel", {}, 124, 1),
    "GPT-2 XL": ("GPT2LMHeadModel", {"n_embd": 1600, "n_layer": 48, "n_head": 25}, 1_500, 100),
    "GPT-3": ("GPT2LMHeadModel", {"n_embd": 12288, "n_layer": 96, "n_head": 96, "n_positions": 2048}, 175_000, 1_000),
    "Llama 7B": ("LlamaForCausalLM", {}, 6_700, 100),
    "BART-base": (
        "BartForConditionalGeneration",
        {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
        | {"encoder_attention_heads": 12, "decoder_attention_heads": 12},
        140,
        10,
    ),
    "BART-large": ("BartForConditionalGeneration", {}, 400, 100),
    "T5-small": ("T5ForConditionalGeneration", {}, 60, 10),
    "T5-base": (
        "T5ForConditionalGeneration",
        {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
        220,
        10,
    ),
    "T5-11B": (
        "T5ForConditionalGeneration",
        {"d_model": 1024, "d_kv": 128, "d_ff": 65536, "num_layers": 24, "num_heads": 128},
        11_000,
        1_000,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    """Rounded as published, or cut."""
    architecture, settings, millions, unit = PUBLISHED[name]
    theirs = getattr(transformers, architecture).config_class(**settings).to_dict() | {"architectures": [architecture]}
    counted = sizes.parameters(family_of(theirs).read_config(theirs))["total"] / 1e6 / unit
    assert millions // unit in (round(counted), int(counted))


@pytest.mark.parametrize(("window", "causal"), [(None, True), (3, True), (None, False), (3, False), (100, True)])
def test_visible_pairs_are_counted_one_by_one(window: int | None, causal: bool) -> None:
    def attends(query: int, key: int) -> bool:
        near = window is None or abs(query - key) < window
        return near and (key <= query or not causal)

    lengths = [1, 7, 4]
    counted = sum(attends(q, k) for length in lengths for q in range(length) for k in range(length))
    assert sizes.visible_pairs(lengths, window, causal) == counted


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_are_those_of_the_products_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch makes products for all pairs, those hidden by a mask too, which are added here."""
    monkeypatch.setattr(attention, "_is_native", lambda *_: False)  # torch counts its own products alone
    config = _config(name)
    network = Transformer(config).double().eval()  # the native kernels, which torch cannot count, are for float32
    tokens, read, places = 10, 7, 2
    encoder_decoder, memory = config.architecture == "encoder-decoder", None
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        if encoder_decoder:
            memory = network.encode(torch.randint(0, config.vocab_size, (1, read)))
        answer = network(
            torch.randint(0, config.vocab_size, (1, tokens)), memory=memory, logits_to_keep=torch.tensor([3, 9])
        )
        labels = {head.name: len(head.places(tokens)) for head in config.heads}
        for head in config.heads:
            network.head_logits(head.name, answer.hidden[0, list(head.places(tokens))])
    products = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    matrices = sum(count for op, count in products.items() if op in ("aten.mm", "aten.addmm"))
    sources = [read] if encoder_decoder else None
    computed = sizes.forward_flops(config, tokens, places, memory_lengths=sources, labels=labels)
    assert computed.linears + computed.head == matrices
    layers = range(config.num_decoder_layers if encoder_decoder else config.num_hidden_layers)
    causal = config.architecture != "encoder"
    hidden = sum(tokens**2 - sizes.visible_pairs([tokens], config.window_of(layer), causal) for layer in layers)
    assert products["aten.bmm"] == computed.attention + 4 * config.num_attention_heads * config.head_size * hidden
    assert sum(products.values()) == matrices + products["aten.bmm"]


def test_documents_packed_cost_what_they_cost_alone() -> None:
    config = _config("llama")
    packed = sizes.forward_flops(config, 12, 12, [5, 7]).total
    assert packed == sizes.forward_flops(config, 5).total + sizes.forward_flops(config, 7).total
    config = _config("t5")
    packed = sizes.forward_flops(config, 12, 12, [5, 7], [4, 2]).total
    alone = [sizes.forward_flops(config, tokens, None, None, [read]).total for tokens, read in ((5, 4), (7, 2))]
    assert packed == sum(alone)


def test_lengths_that_do_not_sum_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 5"):
        sizes.forward_flops(_config("llama"), 12, document_lengths=[2, 3])


def test_sources_are_asked_for() -> None:
    with pytest.raises(ValueError, match="0 sources for 2 documents"):
        sizes.forward_flops(_config("t5"), 5, document_lengths=[2, 3])


@pytest.mark.parametrize("name", ["llama", "t5", "bart"])
def test_key_values_are_those_of_the_cache(name: str) -> None:
    config = _config(name)
    network = Transformer(config).eval()
    cache, memory, read = Cache(config, 1, 10), None, 0
    with torch.no_grad():
        if config.architecture == "encoder-decoder":
            read = 7
            memory = network.encode(torch.zeros(1, read, dtype=torch.int64))
        network(torch.zeros(1, 10, dtype=torch.int64), memory=memory, cache=cache)
    held = 0
    for layer in cache.layers:
        nothing = torch.zeros(1, config.key_value_heads, 0, config.head_size)
        own = layer.append(nothing, nothing)
        held += sum(part.numel() for part in (*own, *(layer.cross or ())))
    assert sizes.key_value_bytes(config, tokens=10, bytes_each=2, memory_tokens=read) == 2 * held
