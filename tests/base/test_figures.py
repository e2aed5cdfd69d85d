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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("2 sec", 2), ("1minute", 60), ("5 Minutes", 300), ("3 mins", 180), ("1.5 h", 5400),
     ("1 hour", 3600), ("2hours", 7200), ("2 hrs", 7200)],
)  # fmt: skip
def test_a_duration_is_read_in_words_too(text, seconds):
    assert figures.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["1 month", "h", "0 min", "1 minute 30", "5 ms", "-1h"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="for example 90s, 20m or 1h"):
        figures.parse_duration(text)
