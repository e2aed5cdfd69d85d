"""Marian (Junczys-Dowmunt et al. 2018), which has the original Transformer's shape (Vaswani et al. 2017): encoder and
decoder, post-norm, sinusoidal positions, all sines first. Its translation is BART's; its files may hold the sinusoids.
"""

from __future__ import annotations

from typing import Any

from lmworks.families import bart
from lmworks.families.family import Family, Keys
from lmworks.model.config import ModelConfig

ARCHITECTURE = "MarianMTModel"
POSITIONS = {"positions": "sinusoidal_halves", "initialization": "xavier"}
SINUSOIDS = r"model\.(en|de)coder\.embed_positions\.weight"


def _read(keys: Keys) -> dict[str, Any]:
    fields = bart.read(POSITIONS, ARCHITECTURE, keys)
    keys.expect("share_encoder_decoder_embeddings", True)
    keys.expect("decoder_vocab_size", fields["vocab_size"], None)
    return fields


def _write(config: ModelConfig) -> dict[str, Any]:
    return bart.write(config) | {"static_position_embeddings": True, "share_encoder_decoder_embeddings": True}


MARIAN = Family("marian", ARCHITECTURE, _read, _write, bart.rows, "model.", (SINUSOIDS,), bart.TIED)
