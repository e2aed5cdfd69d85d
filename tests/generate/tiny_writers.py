"""Random networks with the tiny tokenizers, as writers of texts that a grammar constrains."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tiny_tokenizers import byte_level, sentencepiece
from tokenizers import AddedToken

from lmworks.generate.grammar import Grammar
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.text import Reply, complete
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

pytest.importorskip("llguidance", reason="grammars need lmworks[grammar]")

BYTES = byte_level(end_ids=[4])
PIECES = sentencepiece()
MERGED = byte_level(end_ids=[4])
"""Has tokens of several brackets and quotes, as large vocabularies do."""
MERGED.add_tokens(["''", "'''", '""', '"}', '"])', "}}", '": "', '{"'])
CONTEXT = 512


def network_for(tokenizer: Tokenizer, seed: int = 0, rows: int | None = None) -> Transformer:
    """A random decoder that says anything but JSON; ``rows``: of its embedding, which may be padded."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vocab_size = tokenizer.highest_id + 1 if rows is None else rows
    network = Transformer(ModelConfig(vocab_size=vocab_size, max_position_embeddings=CONTEXT, **sizes)).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network.requires_grad_(False)


def write(
    tokenizer: Tokenizer, grammar: Grammar, prompts: Sequence[str] = ("The sky",), seed: int = 0, **settings
) -> list[Reply]:
    """What a random network writes to each prompt."""
    stepper = TorchStepper(network_for(tokenizer))
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    return complete(stepper, tokenizer, ids, SamplingSettings(seed=seed, **settings), grammar=grammar)


def with_special(tokenizer: Tokenizer, *tokens: str) -> Tokenizer:
    """The tokenizer with further special tokens."""
    tokenizer.core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return tokenizer
