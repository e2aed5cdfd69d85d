"""How fast memory is read: cached, and measured again while other programs disturbed the measurement."""

from __future__ import annotations

import pytest

from lmworks.base import measurements
from lmworks.kernels import reading
from lmworks.kernels.native_module import native_module


def test_a_disturbed_measurement_is_made_again_and_a_quiet_one_is_kept(monkeypatch, tmp_path):
    if native_module() is None:
        pytest.skip("the native kernels are not built")
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path))
    monkeypatch.setattr(reading, "SIZES", (1, 8))
    monkeypatch.setattr(measurements, "REPEAT_AFTER", 0.0)
    rates, shares = iter([10.0, 20.0, 15.0, 15.0]), iter([0.5, 1.0])
    monkeypatch.setattr(reading, "_rate", lambda module, size: next(rates))
    monkeypatch.setattr(reading.ShareMeter, "share", lambda meter: next(shares))
    first = reading.reading_rates()
    assert first.gigabytes == {"1": 10.0, "8": 20.0}
    assert (first.share, first.tries) == (0.5, 1)
    second = reading.reading_rates()
    assert second.gigabytes == {"1": 15.0, "8": 20.0}  # other programs can only slow it
    assert (second.share, second.tries) == (1.0, 2)
    assert reading.reading_rates() == second
