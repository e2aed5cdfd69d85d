"""How fast this machine multiplies the matrices of SmolLM2-135M: what training could reach if nothing else took time.

The products are those of a training step: every linear of every block forward and back to its input, a row of tokens at
a time, each with weights of its own, so that they are read from memory as in a model. Every provider that lmworks can
choose multiplies them; the fastest one is the limit, whatever the tools that are compared multiply with.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

TOKENS, REPEATS = 512, 4


def rate(
    shapes: list[tuple[int, int]], precision: str, provider: str, tokens: int = TOKENS, repeats: int = REPEATS
) -> float:
    """GFLOP/s over all products, the median of the repeats, after one that warms up.

    Args:
        shapes: (inputs, outputs) of each linear.
        precision: of all tensors.
        provider: a name of kernels/matmul.
        tokens: of each product.
        repeats: how often all products are timed.
    """
    import torch

    from lmworks.kernels.matmul import PROVIDERS

    dtype, multiply = getattr(torch, precision), PROVIDERS[provider]
    weights = [torch.randn(outputs, inputs).to(dtype) for inputs, outputs in shapes]
    wide = {size: torch.randn(tokens, size).to(dtype) for shape in shapes for size in shape}
    taken = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            started = time.perf_counter()
            for weight in weights:
                multiply(wide[weight.shape[1]], weight.t(), None, 1.0, False)
                multiply(wide[weight.shape[0]], weight, None, 1.0, False)
            taken.append(time.perf_counter() - started)
    work = sum(4.0 * tokens * inputs * outputs for inputs, outputs in shapes)
    return work / statistics.median(taken[1:]) / 1e9


def rates(
    shapes: list[tuple[int, int]], precisions: list[str], tokens: int = TOKENS, repeats: int = REPEATS
) -> dict[str, float]:
    """GFLOP/s of the fastest provider by precision, and of each provider as "float32 by onednn"."""
    from lmworks.kernels.matmul import available

    result = {}
    for precision in precisions:
        by_provider = {name: rate(shapes, precision, name, tokens, repeats) for name in available(precision)}
        result[precision] = max(by_provider.values())
        result |= {f"{precision} by {name}": speed for name, speed in by_provider.items()}
    return result


def main() -> None:
    import arms

    from lmworks.base.processor import use_threads
    from lmworks.families.folder import read_config
    from lmworks.model.sizes import linears

    use_threads()
    shapes = [(linear.inputs, linear.outputs) for linear in linears(read_config(arms.reference_folder()))]
    print(json.dumps(rates(shapes, sys.argv[1:])))


if __name__ == "__main__":
    main()
