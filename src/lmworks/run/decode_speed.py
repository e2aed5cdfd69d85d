"""How fast the native engine decodes with a model's weights as they are stored: a short measurement, beside another."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from lmworks.adapt import adapters
from lmworks.base.contention import UNDISTURBED_SHARE, ShareMeter
from lmworks.base.errors import InputError
from lmworks.base.files import human
from lmworks.base.process_memory import memory
from lmworks.base.processor import threads
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import BLOCK_KINDS, formats_of, unsupported, weights_of
from lmworks.generate.stepper import RowStart
from lmworks.model.storage import BlockStorage
from lmworks.model.stored_layers import stored_layers, weight_bytes
from lmworks.model.ternary_blocks import TERNARY
from lmworks.model.transformer import Transformer

PROMPT_TOKENS, NEW_TOKENS = 16, 64
SECONDS = 10.0
"""After so many no further token is decoded: of a model that takes so long, fewer tell enough."""


@dataclass(frozen=True)
class DecodeSpeed:
    """How fast one text is continued.

    Attributes:
        tokens_per_second: by the median time of a token; None: it was not measured.
        tokens: how many were timed.
        formats: of the matrices as the engine has them, such as Q4_0; those that it does not know are widened.
        share: of the processor that the measurement got; other programs had the rest.
        fault: why it was not measured, as a phrase.
    """

    tokens_per_second: float | None
    tokens: int = 0
    formats: tuple[str, ...] = ()
    share: float = 1.0
    fault: str = ""


def measure_decoding(network: Transformer) -> DecodeSpeed:
    """Decode after a prompt of PROMPT_TOKENS, by the native engine: NEW_TOKENS, or as many as SECONDS allow.

    Args:
        network: of any kind; what the engine does not compute is said. Adapters are merged meanwhile.

    Raises:
        InputError: an adapter cannot be merged.
    """
    config = network.config
    with adapters.merged(network):
        if fault := unsupported(network):
            return DecodeSpeed(None, fault=f"the native engine does not compute the model: {fault}")
        if (needed := _bytes_in_engine(network)) > (free := memory()[1]):
            fault = f"its weights take {human(needed)} in the native engine, and {human(free)} of memory are free"
            return DecodeSpeed(None, fault=fault)
        try:
            weights = weights_of(network)
        except InputError as error:  # blocks that the engine refuses
            return DecodeSpeed(None, fault=error.fault)
    count = min(NEW_TOKENS, config.max_position_embeddings - PROMPT_TOKENS)
    if count < 1:
        return DecodeSpeed(None, fault=f"the context leaves no room after {PROMPT_TOKENS} tokens")
    stepper = NativeStepper(weights.engine, config.vocab_size, config.max_position_embeddings)
    meter = ShareMeter(threads())
    taken = _seconds(stepper, count)
    return DecodeSpeed(1.0 / median(taken), len(taken), tuple(formats_of(weights)), meter.share())


def line_of(before: DecodeSpeed, after: DecodeSpeed) -> str:
    """The speeds of a model and of what became of it, for a person."""
    if before.tokens_per_second is None or after.tokens_per_second is None:
        return f"decode speed not measured: {before.fault or after.fault}"
    first, second = (
        f"{speed.tokens_per_second:.3g} tokens/s ({', '.join(speed.formats)})" for speed in (before, after)
    )
    ratio, tokens = after.tokens_per_second / before.tokens_per_second, min(before.tokens, after.tokens)
    line = f"decode speed {first} -> {second}: {ratio:.2f}x, by the native engine, medians of {tokens} tokens"
    if (share := min(before.share, after.share)) < UNDISTURBED_SHARE:
        line += f"; disturbed by other programs, which had {1 - share:.0%} of the processor"
    return line


def _bytes_in_engine(network: Transformer) -> int:
    """Bytes of all weights as the engine has them: blocks that it does not know are widened to float32."""
    storages = (layer.storage for _, layer in stored_layers(network))
    widened = (own for own in storages if isinstance(own, BlockStorage) and own.kind not in (*BLOCK_KINDS, *TERNARY))
    return weight_bytes(network) + sum(4 * math.prod(own.shape) for own in widened)


def _seconds(stepper: NativeStepper, count: int) -> Sequence[float]:
    """Seconds of each token after a prompt of any tokens."""
    prompt = [7919 * place % stepper.vocab_size for place in range(PROMPT_TOKENS)]
    stepper.prefill([RowStart(prompt)], count)
    taken, began = list[float](), time.perf_counter()
    while len(taken) < count and (not taken or time.perf_counter() - began < SECONDS):
        token, started = int(stepper.logits[0].argmax()), time.perf_counter()
        stepper.step([token])
        taken.append(time.perf_counter() - started)
    return taken
