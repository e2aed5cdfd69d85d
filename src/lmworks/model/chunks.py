"""Sizes of the chunks in which logits and evaluation are computed, to save memory. Imports no torch.

Logits are the largest tensors of a small model with a large vocabulary.
"""

from __future__ import annotations

TRAINED_LOGITS = 128  # tokens whose logits, and their gradients, exist at a time in training in float32
MIN_LOGIT_NUMBERS = 1 << 20  # elements of a chunk of logits, at least: small vocabularies get few, larger chunks
EVALUATED_TOKENS = 1024  # tokens of a forward pass in evaluation; matmuls reach their full rate well below this size
EVALUATED_LOGITS = 256  # tokens whose logits exist at a time in evaluation


def trained_logits(vocab_size: int, precision: str) -> int:
    """Tokens whose logits may exist at a time in training: twice as many where the logits have half the size."""
    tokens = TRAINED_LOGITS * (2 if precision == "bfloat16" else 1)
    return max(tokens, MIN_LOGIT_NUMBERS // vocab_size)
