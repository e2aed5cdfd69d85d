"""Without PyTorch the native engine starts its own threads: any number of them, and several callers at once, get the
same bits. The thread sanitizer runs this too."""

import subprocess
import sys

import pytest

from lmworks.kernels.native_module import native_module

BEGINNING = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from lmworks.kernels.native_module import native_module

kernels = native_module()
assert "torch" not in sys.modules
V, E, F, P, L, H, K, D = 80, 256, 512, 130, 2, 4, 2, 64
draw = np.random.default_rng(0)
config = {
    "vocab_size": V, "hidden_size": E, "intermediate_size": F, "heads": H, "kv_heads": K, "head_size": D,
    "rotary_size": D, "positions": P, "float_cache": False, "layer_norm": False, "activation": 2, "eps": 1e-5,
    "attention_scale": D**-0.5, "embedding_scale": 1.0, "head_scale": 1.0, "attention_softcap": 0.0,
    "logit_softcap": 0.0, "windows": [0] * L, "local": [False] * L,
}
"""
DECODER = """
engine = kernels.Engine(config)
engine.set_matrix(-1, "embed_tokens", 0, draw.standard_normal((V, E), np.float32).view(np.uint8).ravel(), None)
shapes = {"q_proj": (E, E), "k_proj": (K * D, E), "v_proj": (K * D, E), "o_proj": (E, E), "gate_proj": (F, E)}
shapes |= {"up_proj": (F, E), "down_proj": (E, F)}
for layer in range(L):
    for name, (rows, columns) in shapes.items():
        blocks = draw.integers(0, 256, (rows, columns // 256, 66), np.uint8)
        blocks &= ~(blocks & blocks >> 1 & 0x55)  # ternary: 0, 1 and 2
        blocks[..., -2:] = np.array([0.05], "<f2").view(np.uint8)
        engine.set_matrix(layer, name, 6, blocks.ravel(), None)
    for name in ("input_layernorm", "post_attention_layernorm"):
        engine.set_norm(layer, name, np.ones(E, np.float32), None)
engine.set_norm(-1, "norm", np.ones(E, np.float32), None)
angles = draw.standard_normal((P, D // 2)).astype(np.float32).ravel()
engine.set_rotary(False, np.cos(angles), np.sin(angles))
engine.finish()

def logits(cache):
    sequence = engine.add_sequence(1, cache=cache)
    parts = []
    for tokens in ([3, 7, 1], [5], list(range(40)), list(range(70)), [9], [11]):
        out = np.empty((len(tokens), V), np.float32)
        numbers, wanted = np.full(len(tokens), sequence), np.ones(len(tokens), np.int64)
        engine.step(numbers, np.array(tokens), wanted, out)
        parts.append(out.tobytes())
    engine.remove_sequence(sequence)
    return b"".join(parts)

for cache in (1, 2):
    results = set()
    for threads in (1, 2, 5, 3):
        kernels.set_num_threads(threads)
        results.add(logits(cache))
        with ThreadPoolExecutor(3) as callers:
            results |= set(callers.map(logits, [cache] * 6))
    print(len(results), np.isfinite(np.frombuffer(results.pop(), np.float32)).all())
"""
ENCODER = """
parts = {"post_norm": True, "depth": L, "embedding_size": E}
engine = kernels.Engine({**config, "activation": 0, "layer_norm": True, "rotary_size": 0, "encoder": parts})
engine.set_vector("embed_tokens", draw.standard_normal(V * E, np.float32))
shapes = {"q_proj": (E, E), "k_proj": (K * D, E), "v_proj": (K * D, E), "o_proj": (E, E), "up_proj": (F, E)}
for layer in range(L):
    for name, (rows, columns) in (shapes | {"down_proj": (E, F)}).items():
        bfloat16 = (draw.standard_normal((rows, columns), np.float32).view(np.uint32) >> 16).astype("<u2")
        engine.set_matrix(layer, name, 2, bfloat16.view(np.uint8).ravel(), None)
    for name in ("input_layernorm", "post_attention_layernorm"):
        engine.set_norm(layer, name, np.ones(E, np.float32), None)
engine.finish()

def states(lengths):
    offsets = np.cumsum([0, *lengths])
    out = np.empty((offsets[-1], E), np.float32)
    engine.encode(np.arange(offsets[-1]) * 7 % V, offsets, out)
    return out.tobytes()

for lengths in ([130, 20], [1, 70, 64, 33] * 12):  # the threads share each product, or take some texts each
    results = set()
    for threads in (1, 2, 5, 3):
        kernels.set_num_threads(threads)
        results.add(states(lengths))
        with ThreadPoolExecutor(3) as callers:
            results |= set(callers.map(states, [lengths] * 6))
    print(len(results), np.isfinite(np.frombuffer(results.pop(), np.float32)).all())
"""


@pytest.mark.skipif(native_module() is None, reason="the native kernels are not compiled here")
@pytest.mark.parametrize("model", [DECODER, ENCODER], ids=["decoder", "encoder"])
def test_any_number_of_threads_and_callers_get_the_same_bits(model):
    done = subprocess.run([sys.executable, "-c", BEGINNING + model], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["1 True", "1 True"], done.stderr
