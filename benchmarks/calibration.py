"""What four bits cost a decoder in bits per byte: rounded to the nearest level, with searched scales, and calibrated.

SmolLM2 comes in Q4_1, which would hold it without an error: it is rounded to Q4_0. It is calibrated on documentation of
Python's modules and measured on documentation topics, of which the calibration has none.
"""

from __future__ import annotations

import argparse
import time

import lmworks
from lmworks.language_model.model import LanguageModel
from lmworks.model.block_formats import encode
from lmworks.model.four_bit_blocks import four_bit_blocks
from lmworks.model.rounding_rules import q4_0
from lmworks.model.sizes import linears
from lmworks.model.stored_layers import store
from lmworks.run.calibration import CALIBRATION_TOKENS, quantize_model
from lmworks.run.requantization import measure_loss

DECODER, DATA = "smollm2-135m-instruct", "python-help"


def round_to_nearest(model: LanguageModel) -> None:
    """All linears of a model's blocks in Q4_0, without data."""
    for linear in linears(model.config):
        rounded = q4_0(model.network.get_submodule(linear.name).get_parameter("weight"))
        store(model.network, linear.name, four_bit_blocks(rounded.levels.flatten(1), rounded.scales[..., 0]))


def search_scales(model: LanguageModel) -> None:
    """The same with each block's scale searched, as ``lmworks quantize --to q4`` does."""
    for linear in linears(model.config):
        weight = model.network.get_submodule(linear.name).get_parameter("weight")
        store(model.network, linear.name, encode(weight.detach().float(), "Q4_0"))


def print_calibration(tokens: int) -> None:
    """Bits per byte before rounding and after, by procedure."""
    print(f"{DECODER} in Q4_0, calibrated on {tokens:,} tokens of {DATA}")
    print(f"{'procedure':<32}{'bits per byte':>16}{'added':>10}{'seconds':>10}")
    model = lmworks.load(DECODER)
    loss = measure_loss(model, lambda: round_to_nearest(model))
    assert loss is not None
    print(f"{'as it comes':<32}{loss.before:>16.4f}")
    print(f"{'nearest level':<32}{loss.after:>16.4f}{loss.after - loss.before:>+10.4f}")
    model = lmworks.load(DECODER)
    searched = measure_loss(model, lambda: search_scales(model))
    assert searched is not None
    print(f"{'scales searched':<32}{searched.after:>16.4f}{searched.after - loss.before:>+10.4f}")
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
    print_calibration(parser.parse_args().tokens)


if __name__ == "__main__":
    main()
