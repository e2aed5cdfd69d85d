"""Encoders of llama.cpp's blocks: plain rounding to the byte as the gguf library does, the search never worse."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from lmworks.base.errors import InputError
from lmworks.model import block_formats
from lmworks.model.block_formats import FORMATS, divides, encode

SEARCHED = ("Q4_0", "Q4_1")


def weights() -> torch.Tensor:
    """Normal numbers, and blocks in which rounding is easily wrong: zeros, ties, one large number, both extremes."""
    weight = torch.randn(24, 512, generator=torch.Generator().manual_seed(1))
    weight[0] = 0.0
    weight[1] = torch.arange(512) % 16 - 8  # both extremes, all halfway or exact
    weight[2] = 3.0
    weight[3, 5] = 1000.0
    weight[4] *= 1e-4
    weight[5] = weight[5].sign() * 2.5  # the largest magnitude many times, with both signs
    weight[6] = weight[6].abs() + 7
    weight[7] = -weight[6]
    return weight


def errors(weight: torch.Tensor, kind: str, search: bool) -> torch.Tensor:
    """The squared error of each block."""
    decoded = encode(weight, kind, search).dequantized()
    return (decoded - weight).square().view(-1, 32).sum(1)


@pytest.mark.parametrize("kind", FORMATS)
def test_plain_rounding_gives_the_bytes_of_the_library(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_formats, "CHUNK", 2048)  # several chunks
    weight = weights()
    expected = gguf.quants.quantize(weight.numpy(), gguf.GGMLQuantizationType[kind])
    storage = encode(weight, kind, search=False)
    assert storage.shape == weight.shape
    assert np.array_equal(storage.blocks.numpy(), expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_encoded_is_decoded_as_the_library_does(kind: str) -> None:
    storage = encode(weights(), kind)
    assert storage.kind == kind
    reference = gguf.quants.dequantize(storage.blocks.numpy(), gguf.GGMLQuantizationType[kind])
    assert np.array_equal(storage.dequantized().numpy(), reference)


@pytest.mark.parametrize("kind", SEARCHED)
def test_the_search_is_never_worse_and_mostly_better(kind: str) -> None:
    weight = weights()
    plain, found = errors(weight, kind, False), errors(weight, kind, True)
    assert (found <= plain).all()
    normal = torch.randn(64, 512, generator=torch.Generator().manual_seed(2))
    plain, found = errors(normal, kind, False), errors(normal, kind, True)
    assert (found < plain).float().mean() > 0.8
    assert found.sum() < 0.9 * plain.sum()


@pytest.mark.parametrize("kind", SEARCHED)
def test_what_a_format_has_exactly_is_encoded_without_error(kind: str) -> None:
    levels = torch.arange(64).view(2, 32) % 16
    assert not errors((levels - 8) * 0.5, kind, True).any()


def test_eight_bits_are_as_near_as_half_a_step() -> None:
    weight = weights()
    steps = weight.view(-1, 32).abs().amax(1) / 127
    difference = (encode(weight, "Q8_0").dequantized() - weight).abs().view(-1, 32).amax(1)
    # half a step, and what 127 times the rounding of the step itself to float16 comes to, also of the smallest
    assert (difference <= steps * (0.5 + 127 / 2048) + 127 * 2.0**-25).all()


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_ternary_weights_come_back_exactly(kind: str) -> None:
    weight = torch.randint(-1, 2, (4, 512), generator=torch.Generator().manual_seed(3)) * 0.25
    assert torch.equal(encode(weight, kind).dequantized(), weight)


def test_other_precisions_are_encoded_as_their_numbers() -> None:
    weight = weights().bfloat16()
    assert torch.equal(encode(weight, "Q4_0").blocks, encode(weight.float(), "Q4_0").blocks)


def test_what_cannot_be_encoded_is_refused() -> None:
    assert divides(64, "Q4_0")
    assert not divides(48, "Q4_0")
    assert not divides(64, "TQ2_0")
    with pytest.raises(InputError, match="Q5_K"):
        encode(weights(), "Q5_K")
    with pytest.raises(InputError, match="rows of 48"):
        encode(torch.zeros(2, 48), "Q4_0")
    for bad in (float("nan"), float("inf"), 1e5):
        weight = weights()
        weight[9, 9] = bad
        for kind in FORMATS:
            with pytest.raises(InputError, match=r"blk\.1"):
                encode(weight, kind, place="blk.1")
