"""How much passes through a network at a time where all at once would take memory for nothing. Imports no torch.

Logits are the largest tensors of a small model: 128 places of 49,152 entries take 25 MB in float32.
"""

from __future__ import annotations

TRAINED_LOGITS = 128  # places whose logits exist at a time in training, and of which the gradient is made at once
MIN_LOGIT_NUMBERS = (
    1 << 20
)  # so many numbers of logits may always exist: small vocabularies are not cut into many pieces
EVALUATED_TOKENS = 1024  # tokens that pass through at a time without training; products are at full speed well below it
EVALUATED_LOGITS = 256  # places whose logits exist at a time there


def trained_logits(vocab_size: int) -> int:
    """Places whose logits may exist at a time in training."""
    return max(TRAINED_LOGITS, MIN_LOGIT_NUMBERS // vocab_size)
