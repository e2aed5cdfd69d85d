"""Which models have blocks that model/fused computes as one autograd function. Imports no torch."""

from __future__ import annotations

from lmworks.kernels.native_module import NATIVE_ACTIVATIONS
from lmworks.model.config import ModelConfig


def is_fusable(config: ModelConfig) -> bool:
    """Whether all parts of the config's blocks have native kernels: LayerNorm or RMSNorm before or after each part,
    attention without score bias and soft cap, and a native activation."""
    if config.layer != "attention":
        return False
    plain_norms = config.norm_position != "both" and config.norm != "rms_offset" and not config.qk_norm
    plain_scores = config.positions != "relative" and config.attention_softcap is None
    return plain_norms and plain_scores and config.activation in NATIVE_ACTIVATIONS
