"""The native engine written to a file and read from it: the same logits; damaged files are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from lmworks.base.errors import InputError
from lmworks.generate.engine_file import open_engine
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import weights_of
from lmworks.generate.stepper import RowStart
from lmworks.kernels.native_module import native_module
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

SIZES = {"vocab_size": 83, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
KINDS = {
    "llama": {},
    "gpt2": {"norm": "layer", "positions": "learned", "gated": False, "qkv_bias": True, "output_bias": True},
    "gemma": {"norm_position": "both", "sliding_window": 8, "layer_kinds": ("sliding_attention", "full_attention")}
    | {"rope_local_theta": 1000.0, "qk_norm": True, "tie_word_embeddings": False, "head_bias": True},
}


@pytest.fixture(params=list(KINDS))
def weights(request):
    config = ModelConfig(**SIZES, max_position_embeddings=40, **KINDS[request.param])
    network = Transformer(config).eval()
    draw(network, torch.Generator().manual_seed(1))
    return weights_of(network)


def logits_of(engine) -> np.ndarray:
    stepper = NativeStepper(engine, SIZES["vocab_size"], 40)
    stepper.prefill([RowStart([3, 7, 1, 60, 82]), RowStart([5])])
    return stepper.logits


def test_a_read_engine_gives_the_same_bits(weights, tmp_path):
    weights.save(tmp_path / "engine.safetensors")
    engine = open_engine(tmp_path / "engine.safetensors")
    assert engine.sizes() == weights.engine.sizes()
    np.testing.assert_array_equal(logits_of(engine), logits_of(weights.engine))


def test_damaged_files_are_refused(weights, tmp_path):
    path = tmp_path / "engine.safetensors"
    weights.save(path)
    arrays, metadata = load_file(path), _metadata(path)
    short = {**arrays, "0.q_proj": arrays["0.q_proj"][:-64]}
    missing = {name: array for name, array in arrays.items() if name != "1.input_layernorm.weight"}
    for number, (changed, said) in enumerate(
        [
            (short, metadata),
            (missing, metadata),
            (arrays, metadata | {"format": "another"}),
            (arrays, metadata | {"kinds": metadata["kinds"].replace("q_proj", "x_proj")}),
            (arrays, metadata | {"config": "{"}),
        ]
    ):
        save_file(changed, tmp_path / f"{number}.safetensors", said)
        with pytest.raises(InputError, match=r"cannot be read|another version"):
            open_engine(tmp_path / f"{number}.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        open_engine(path)


def _metadata(path) -> dict[str, str]:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
