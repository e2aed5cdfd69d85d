"""A tiny network and tiny documents to train it on."""

import numpy as np
import torch

from lmworks.data.batch import Example
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer


def tiny_config(**changes) -> ModelConfig:
    values = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    }
    return ModelConfig(**(values | changes))


def make_network(seed: int = 0, **changes) -> Transformer:
    network = Transformer(tiny_config(**changes))
    draw(network, torch.Generator().manual_seed(seed))
    return network


def make_examples(count: int = 12, seed: int = 0, vocabulary: int = 61) -> list[Example]:
    """Documents of 3 to 20 tokens in which each token follows from the one before; loss on the later part."""
    random = np.random.default_rng(seed)
    result = []
    for number in range(count):
        length = int(random.integers(3, 21))
        ids = (random.integers(0, vocabulary) + 7 * np.arange(length)) % vocabulary
        loss = np.arange(length) >= max(1, length // 3)
        result.append(Example(ids.astype(np.int32), loss, f"made:{number}"))
    return result
