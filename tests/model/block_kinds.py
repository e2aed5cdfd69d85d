"""Blocks of several families, in which all parts that a fused block computes come once."""

KINDS = {
    "llama": {"num_key_value_heads": 2},
    "gpt2": {"positions": "learned", "norm": "layer", "gated": False, "activation": "gelu_tanh", "qkv_bias": True,
             "output_bias": True, "mlp_bias": True},
    "bert": {"architecture": "encoder", "positions": "learned", "norm": "layer", "norm_position": "post",
             "gated": False, "activation": "gelu", "qkv_bias": True, "output_bias": True, "mlp_bias": True},
    "partial": {"rotary_fraction": 0.5, "gated": False, "activation": "relu"},
}  # fmt: skip
