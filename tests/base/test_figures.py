"""Numbers as a person reads them."""

import pytest

from lmworks.base import figures


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (-1.31, -1.13, "−1.31 … −1.13"),
        (-1.94, 6.71, "−1.9 … +6.7"),
        (0.0, 0.0, "0 … 0"),
        (0.0001, 0.0001, "+0.0001 … +0.0001"),
        (-3e-12, 2e-12, "−3e-12 … +2e-12"),
        (0.002, 0.5, "+0.002 … +0.50"),
        (-0.5, -0.002, "−0.50 … −0.002"),
        (0.0, 0.5, "+0.00 … +0.50"),
    ],
)
def test_an_interval_shows_on_which_side_of_zero_it_lies(low, high, text):
    assert figures.interval(low, high, sign=True) == text
