"""Tiny folders of the other kinds: an encoder with both heads of BERT, an encoder-decoder as T5; with tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Core
from tokenizers import decoders, models, pre_tokenizers, processors

from lmworks.families.folder import save_folder
from lmworks.families.registry import FAMILIES
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "</s>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>", "[UNK]"]
WORDS = ["i", "love", "eat", "##ing", "apple", "##s", "in", "my", "fruit", "salad", "tea", "fresh", "cat", ",", "("]
VOCABULARY = {word: index for index, word in enumerate([*SPECIALS, *WORDS])}
ENCODER = {
    "model_type": "bert", "architectures": ["BertForPreTraining"], "vocab_size": len(VOCABULARY), "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 16,
}  # fmt: skip
BOTH = {
    "model_type": "t5", "vocab_size": len(VOCABULARY), "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2,
    "num_heads": 4, "is_encoder_decoder": True, "decoder_start_token_id": 0,
}  # fmt: skip


def core_of(opening: list[str], closing: list[str]) -> Core:
    """WordPiece with what stands round a text."""
    core = Core(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.add_special_tokens(SPECIALS)
    core.post_processor = processors.TemplateProcessing(
        single=" ".join([*opening, "$A", *closing]),
        pair=" ".join([*opening, "$A", *closing, *(f"{part}:1" for part in ["$B", *closing])]),
        special_tokens=[(word, VOCABULARY[word]) for word in [*opening, *closing]],
    )
    return core


def bert_words() -> Tokenizer:
    """With a mask token, [CLS] and [SEP]."""
    return Tokenizer(core_of(["[CLS]"], ["[SEP]"]), mask_id=3, pad_id=0, unk_id=8)


def t5_words() -> Tokenizer:
    """With sentinels and an end."""
    return Tokenizer(core_of([], ["</s>"]), eos_id=4, pad_id=0, unk_id=8)


def save_encoder(folder: Path) -> Path:
    """As BERT was pretrained: masked words and next sentences."""
    return _save(folder, ENCODER, bert_words())


def save_classifier(folder: Path, labels: list[str], **keys: Any) -> Path:
    """An encoder with a head for these labels; one label: a head that gives a value."""
    named = {str(number): label for number, label in enumerate(labels)}
    head = {"architectures": ["BertForSequenceClassification"], "id2label": named}
    return _save(folder, ENCODER | head | keys, bert_words())


def save_both(folder: Path, generation: dict[str, Any] | None = None) -> Path:
    """As T5."""
    output = {"decoder_start_token_id": 0, "eos_token_id": 4} if generation is None else generation
    return _save(folder, BOTH, t5_words(), output)


def _save(folder: Path, keys: dict[str, Any], words: Tokenizer, generation: dict[str, Any] | None = None) -> Path:
    family = FAMILIES[keys["model_type"]]
    torch.manual_seed(0)
    network = Transformer(family.read_config(keys)).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return save_folder(folder, network, network.config, family, words, keys, generation)
