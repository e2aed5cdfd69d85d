"""What rounding costs: every rule's error on a matrix of a published model, and a decoder's bits per byte in four bits,
rounded to the nearest level and calibrated.

SmolLM2 comes in Q4_1, which would hold it without an error: it is rounded to Q4_0. It is calibrated on documentation of
Python's modules and measured on documentation topics, of which the calibration has none.
"""

from __future__ import annotations

import argparse
import time

import lmworks
from lmworks.language_model.model import LanguageModel
from lmworks.model.four_bit_blocks import four_bit_blocks
from lmworks.model.rounding_rules import q4_0, rule_errors
from lmworks.model.sizes import linears
from lmworks.model.stored_layers import store
from lmworks.run.calibration import CALIBRATION_TOKENS, quantize_model
from lmworks.run.requantization import measure_loss

ENCODER, MATRIX = "minilm-l6", "layers.3.mlp.up_proj"
DECODER, DATA = "smollm2-135m-instruct", "python-help"


def print_rules() -> None:
    """The error of every rule, and its bits, on one matrix."""
    weight = lmworks.load(ENCODER).network.get_submodule(MATRIX).get_parameter("weight")
    print(f"{MATRIX} of {ENCODER}, {weight.shape[0]} x {weight.shape[1]}")
    print(f"{'rule':<32}{'bits a weight':>14}{'relative squared error':>26}")
    for row in sorted(rule_errors(weight), key=lambda row: -row.bits):
        print(f"{row.rule:<32}{row.bits:>14.3f}{row.error:>26.3g}")


def round_to_nearest(model: LanguageModel) -> None:
    """All linears of a model's blocks in Q4_0, without data."""
    for linear in linears(model.config):
        rounded = q4_0(model.network.get_submodule(linear.name).get_parameter("weight"))
        store(model.network, linear.name, four_bit_blocks(rounded.levels.flatten(1), rounded.scales[..., 0]))


def print_calibration(tokens: int) -> None:
    """Bits per byte before rounding and after, by procedure."""
    print(f"\n{DECODER} in Q4_0, calibrated on {tokens:,} tokens of {DATA}")
    print(f"{'procedure':<32}{'bits per byte':>16}{'added':>10}{'seconds':>10}")
    model = lmworks.load(DECODER)
    loss = measure_loss(model, lambda: round_to_nearest(model))
    assert loss is not None
    print(f"{'as it comes':<32}{loss.before:>16.4f}")
    print(f"{'nearest level':<32}{loss.after:>16.4f}{loss.after - loss.before:>+10.4f}")
    for name, scaling in (("GPTQ", False), ("scaled channels (AWQ), GPTQ", True)):
        begin, model = time.perf_counter(), lmworks.load(DECODER)
        report = quantize_model(
            model, "q4-calibrated", DATA, block_kind="Q4_0", scaling=scaling, tokens=tokens, measure=False
        )
        seconds = time.perf_counter() - begin
        after = measure_loss(model, lambda: None)
        assert report.loss is None
        assert after is not None
        print(f"{name:<32}{after.after:>16.4f}{after.after - loss.before:>+10.4f}{seconds:>10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=CALIBRATION_TOKENS, help="of the calibration")
    parser.add_argument("--rules", action="store_true", help="only the errors on a matrix")
    given = parser.parse_args()
    print_rules()
    if not given.rules:
        print_calibration(given.tokens)


if __name__ == "__main__":
    main()
