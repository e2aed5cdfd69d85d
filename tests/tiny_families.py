"""A tiny random model of ``transformers`` for every family and variant, and how to ask it and ours the same.

CASES is the one table that tests and benchmarks of families read: a new family adds its rows here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lmworks.families.folder import open_folder
from lmworks.families.mapping import Row, to_ours
from lmworks.families.opened import Opened
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
DISTILBERT = {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MISTRAL, QWEN3 = {"num_key_value_heads": 2}, {"num_key_value_heads": 2, "head_dim": 16}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
    "forced_bos_token_id": 1,
    "forced_eos_token_id": 2,
}
MARIAN = BART | {"decoder_start_token_id": 0, "scale_embedding": True}
T5 = {"d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
T5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "decoder_start_token_id": 0}
ALBERT = {"embedding_size": 16}
GEMMA = {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 5}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.5], "long_factor": [1.5, 2.0, 3.0, 4.0]}


class Case(NamedTuple):
    """A class of ``transformers``, the sizes of its config in its own words, and what is particular about this one.

    ``noise`` is added to every weight, so that those which begin as 0 or 1 tell too: less where scores are not scaled,
    as T5's, since a softmax of large scores makes rounding large.
    """

    architecture: str
    changes: dict[str, Any]
    sizes: dict[str, Any] = SIZES
    noise: float = 0.2


def _scaled(**scaling: Any) -> Case:
    return Case("LlamaForCausalLM", {"rope_scaling": scaling})


CASES: dict[str, Case] = {
    "gpt2": Case("GPT2LMHeadModel", {}, GPT2),
    "gpt2-untied": Case(
        "GPT2LMHeadModel", {"tie_word_embeddings": False, "n_inner": 40, "activation_function": "relu"}, GPT2
    ),
    "llama": Case("LlamaForCausalLM", {}),
    "llama-tied-grouped": Case("LlamaForCausalLM", {"tie_word_embeddings": True, "num_key_value_heads": 2}),
    "llama-multi-query": Case("LlamaForCausalLM", {"num_key_value_heads": 1, "head_dim": 12}),
    "llama-biases": Case("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "llama-linear": _scaled(rope_type="linear", factor=2.5),
    "llama-dynamic": Case(
        "LlamaForCausalLM",
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 16},
    ),
    "llama-yarn": _scaled(**YARN),
    "llama-yarn-told": _scaled(**YARN, beta_fast=8.0, beta_slow=2.0, attention_factor=1.3, truncate=False),
    "llama-yarn-mscale": _scaled(**YARN, mscale=0.7, mscale_all_dim=1.4),
    "llama3": Case("LlamaForCausalLM", {"rope_scaling": LLAMA3, "rope_theta": 500.0}),
    "mistral": Case("MistralForCausalLM", MISTRAL | {"sliding_window": None, "hidden_act": "gelu_pytorch_tanh"}),
    "mistral-window": Case("MistralForCausalLM", MISTRAL | {"sliding_window": 5}),
    "qwen2": Case("Qwen2ForCausalLM", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen2-window": Case(
        "Qwen2ForCausalLM",
        {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": Case("Qwen3ForCausalLM", QWEN3),
    "qwen3-biased-window": Case(
        "Qwen3ForCausalLM",
        QWEN3
        | {"attention_bias": True, "use_sliding_window": True, "sliding_window": 6}
        | {"layer_types": ["sliding_attention", "full_attention"]},
    ),
    "gemma2": Case("Gemma2ForCausalLM", GEMMA),
    "gemma2-hard-caps": Case(
        "Gemma2ForCausalLM",
        GEMMA
        | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "attention_bias": True}
        | {"query_pre_attn_scalar": 10, "layer_types": ["full_attention", "sliding_attention"]},
    ),
    "gemma2-no-caps": Case(
        "Gemma2ForCausalLM",
        GEMMA | {"attn_logit_softcapping": None, "final_logit_softcapping": None, "tie_word_embeddings": False},
    ),
    "gemma3": Case("Gemma3ForCausalLM", GEMMA | {"num_hidden_layers": 7}),
    "gemma3-linear": Case(
        "Gemma3ForCausalLM",
        GEMMA
        | {"layer_types": ["full_attention", "sliding_attention"], "final_logit_softcapping": 4.0}
        | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 500.0, "rope_local_base_freq": 50.0},
    ),
    "phi3": Case("Phi3ForCausalLM", {}),
    "phi3-window": Case("Phi3ForCausalLM", {"num_key_value_heads": 2, "sliding_window": 5}),
    "phi3-longrope": Case("Phi3ForCausalLM", {"rope_scaling": LONGROPE, "original_max_position_embeddings": 16}),
    "phi3-partial": Case(
        "Phi3ForCausalLM",
        {"num_key_value_heads": 1, "partial_rotary_factor": 0.75, "tie_word_embeddings": True}
        | {"original_max_position_embeddings": 16}
        | {"rope_scaling": LONGROPE | {"short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.0, 3.0]}},
    ),
    "starcoder2": Case("Starcoder2ForCausalLM", {}),
    "starcoder2-window": Case("Starcoder2ForCausalLM", {"sliding_window": 5, "tie_word_embeddings": False}),
    "starcoder2-no-biases": Case("Starcoder2ForCausalLM", {"use_bias": False, "num_key_value_heads": 1}),
    "bert": Case("BertForPreTraining", {}),
    "bert-masked": Case("BertForMaskedLM", {"hidden_act": "relu", "type_vocab_size": 3}),
    "bert-untied": Case("BertForMaskedLM", {"tie_word_embeddings": False}),
    "bert-pairs": Case("BertForNextSentencePrediction", {}),
    "minilm": Case("BertModel", {}),
    "roberta": Case("RobertaForMaskedLM", {"type_vocab_size": 1}),
    "roberta-padding": Case("RobertaForMaskedLM", {"pad_token_id": 1, "bos_token_id": 0, "tie_word_embeddings": False}),
    "roberta-bare": Case("RobertaModel", {}),
    "xlm-roberta": Case("XLMRobertaForMaskedLM", {}),
    "distilbert": Case("DistilBertForMaskedLM", {}, DISTILBERT),
    "distilbert-untied": Case(
        "DistilBertForMaskedLM", {"tie_word_embeddings": False, "activation": "relu"}, DISTILBERT
    ),
    "distilbert-bare": Case("DistilBertModel", {}, DISTILBERT),
    "albert": Case("AlbertForPreTraining", ALBERT),
    "albert-groups": Case("AlbertForMaskedLM", ALBERT | {"num_hidden_layers": 4, "num_hidden_groups": 2}),
    "albert-groups-alone": Case("AlbertForMaskedLM", ALBERT | {"num_hidden_groups": 2, "hidden_act": "gelu"}),
    "albert-bare": Case("AlbertModel", ALBERT | {"num_hidden_layers": 3}),
    "bart": Case("BartForConditionalGeneration", {}, BART),
    "bart-scaled": Case(
        "BartForConditionalGeneration",
        {"scale_embedding": True, "activation_function": "gelu_new", "decoder_layers": 1},
        BART,
    ),
    "marian": Case("MarianMTModel", {"activation_function": "swish"}, MARIAN),
    "marian-original": Case("MarianMTModel", {"activation_function": "relu"}, MARIAN),
    "t5": Case("T5ForConditionalGeneration", {}, T5, 0.1),
    "t5-wide-heads": Case("T5ForConditionalGeneration", {"d_kv": 16, "num_decoder_layers": None}, T5, 0.1),
    "t5-v1.1": Case(
        "T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, T5, 0.1
    ),
    "t5-encoder": Case("T5EncoderModel", {}, T5, 0.1),
    "t5-gated-silu": Case("T5ForConditionalGeneration", {"feed_forward_proj": "gated-silu"}, T5, 0.1),
}


def their_class(name: str) -> Any:
    """The class of ``transformers`` that a case is of."""
    import transformers

    return getattr(transformers, CASES[name].architecture)


def their_config(name: str) -> Any:
    """The config of a case, as an object of theirs."""
    case = CASES[name]
    output = {"vocab_size": 101, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = their_class(name).config_class(**(output | case.sizes | case.changes))
    config.architectures = [case.architecture]
    return config


def make(name: str) -> Any:
    """The tiny model of a case, in float32; biases and norms are random too, so that every weight tells."""
    torch.manual_seed(5)
    case = CASES[name]
    model = their_class(name)(their_config(name))
    if not getattr(model.config, "scale_decoder_outputs", True):  # T5 v1.1's published files have a head of their own
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach() * 0.5)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        learned = [weight for weight in model.parameters() if weight.requires_grad]  # Marian's sinusoids are not
        for weight in learned + [buffer for name, buffer in model.named_buffers() if name == "final_logits_bias"]:
            weight.add_(torch.randn(weight.shape, generator=generator) * case.noise)
    return model.float().eval()


def open_case(name: str, folder: Path) -> tuple[Any, Opened]:
    """A case's model, and the folder that it wrote, opened here."""
    model = make(name)
    model.save_pretrained(folder)
    return model, open_folder(folder)


THEIR_ANSWERS = {
    "logits": ("logits", "prediction_logits", "last_hidden_state"),
    "pairs": ("seq_relationship_logits", "sop_logits"),
}


@dataclass
class Question:
    """What both are asked: ids (B, T), for some models types (B, T) or the encoder's ids (B, S)."""

    ids: torch.Tensor
    types: torch.Tensor | None = None
    source: torch.Tensor | None = None

    def row(self, index: int, length: int, source_length: int = 0) -> Question:
        """The beginning of one row, alone."""
        types = None if self.types is None else self.types[index : index + 1, :length]
        source = None if self.source is None else self.source[index : index + 1, :source_length]
        return Question(self.ids[index : index + 1, :length], types, source)


def question(config: ModelConfig, batch: int = 2, length: int = 30) -> Question:
    """Random ids, none of them special."""
    generator = torch.Generator().manual_seed(3)
    asked = Question(torch.randint(3, config.vocab_size, (batch, length), generator=generator))
    if config.type_vocab_size > 1:
        asked.types = torch.randint(config.type_vocab_size, (batch, length), generator=generator)
    if config.architecture == "encoder-decoder":
        asked.source = torch.randint(3, config.vocab_size, (batch, length - 7), generator=generator)
    return asked


def ask_theirs(model: Any, asked: Question) -> dict[str, torch.Tensor]:
    """``logits`` (hidden states where there is no head), and ``pairs`` where the model has a head for them."""
    output: dict[str, Any] = {"input_ids": asked.ids, "token_type_ids": asked.types}
    if asked.source is not None:
        output = {"input_ids": asked.source, "decoder_input_ids": asked.ids}
    answer = model(**{name: value for name, value in output.items() if value is not None})
    if type(model).__name__.endswith("NextSentencePrediction"):
        hidden = model.base_model(**{name: value for name, value in output.items() if value is not None})[0]
        return {"logits": hidden, "pairs": answer.logits}
    return {ours: answer[name] for ours, names in THEIR_ANSWERS.items() for name in names if name in answer}


def ask_ours(network: Transformer, asked: Question) -> dict[str, torch.Tensor]:
    """The same of ours."""
    memory = None if asked.source is None else network.encode(asked.source)
    answer = network(asked.ids, types=asked.types, memory=memory)
    result = {"logits": answer.logits}
    for head in network.config.heads:
        result["pairs"] = network.head_logits(head.name, answer.hidden[:, 0])
    return result


def learn(answers: dict[str, torch.Tensor]) -> None:
    """Gradients of a loss that reads every logit."""
    loss = torch.zeros(())
    for answer in answers.values():
        rows = answer.flatten(0, -2)
        loss = loss + cross_entropy(rows, torch.arange(len(rows)) % rows.shape[1])
    loss.backward()


def their_gradients(model: nn.Module, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Gradients of their weights by our names; without those that are no parameters of theirs."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    output = [row for row in rows if row.theirs in weights]
    created = {row.theirs: weights[row.theirs] for row in output}
    return to_ours(output, {n: torch.zeros_like(w) if w.grad is None else w.grad for n, w in created.items()})


class Differences(NamedTuple):
    """The largest ones: of logits; of gradients; of gradients as a share of the largest gradient."""

    logits: float
    gradients: float
    share: float


def differences(model: Any, ours: Opened) -> Differences:
    """Ask both the same and let both learn the same.

    Raises:
        AssertionError: a shape differs, or one of the weights is no parameter on one side.
    """
    asked = question(ours.config)
    theirs, received = ask_theirs(model, asked), ask_ours(ours.network, asked)
    assert {name: value.shape for name, value in theirs.items()} == {
        name: value.shape for name, value in received.items()
    }
    learn(theirs)
    learn(received)
    expected = their_gradients(model, ours.family.table(ours.config))
    result = {n: torch.zeros_like(w) if w.grad is None else w.grad for n, w in ours.network.named_parameters()}
    assert not set(expected) - set(result)
    assert set(result) - set(expected) <= {"head_bias"}  # BART's, which is a buffer there
    gradients = max(_largest(expected[name] - result[name]) for name in expected)
    largest = max(_largest(item) for item in expected.values())
    return Differences(max(_largest(theirs[n] - received[n]) for n in theirs), gradients, gradients / largest)


def _largest(x: torch.Tensor) -> float:
    return float(x.detach().abs().max())
