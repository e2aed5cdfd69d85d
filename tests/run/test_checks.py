"""Checks of a new run: threads that are refused or said, and what is slow on this machine."""

from dataclasses import replace

import pytest

import lmworks
from lmworks.base import processor
from lmworks.base.errors import InputError
from lmworks.base.probes import Rates
from lmworks.kernels import product_rates
from lmworks.kernels.product_rates import ProductRates
from lmworks.run import checks
from lmworks.train.settings import TrainSettings

EMULATED = Rates(100.0, 2.0, 1.0, 20.0, threads=2, torch="x", seconds=1.0, share=1.0)


@pytest.fixture(name="measured", autouse=True)
def _measured(monkeypatch):
    """Another processor's rates; the providers that failed there are returned, to be changed."""
    faults: dict[str, str] = {}
    monkeypatch.setattr(product_rates, "fastest_rates", lambda: EMULATED)
    monkeypatch.setattr(ProductRates, "cached", lambda: ProductRates(faults=faults))
    return faults


def test_more_threads_than_the_machine_runs_at_once_are_refused(tmp_path):
    item = processor.processor()
    most = max(item.cores, item.logical)
    with pytest.raises(InputError, match=f"{most + 1} threads are more than this machine runs at once"):
        lmworks.tune("a", "b", out=tmp_path / "run", train={"threads": most + 1})
    assert not (tmp_path / "run").exists()


def test_more_threads_than_cores_are_said(monkeypatch):
    item = replace(processor.processor(), cores=2, logical=4)
    monkeypatch.setattr(processor, "processor", lambda: item)
    checks.check_threads(4)
    assert checks.slowdown_notes(TrainSettings(threads=2), "float32") == []
    (output,) = checks.slowdown_notes(TrainSettings(threads=3), "float32")
    assert "3 threads share 2 cores" in output
    assert "train.threads" in output


def test_bfloat16_that_is_emulated_is_said_with_its_rate():
    (output,) = checks.slowdown_notes(TrainSettings(precision="bfloat16"), "bfloat16")
    assert "2 beside 100 GFLOP/s" in output
    assert checks.slowdown_notes(TrainSettings(precision="float32"), "float32") == []


def test_a_provider_that_failed_is_said_with_its_fault(measured):
    measured["onednn"] = "illegal instruction"
    (output,) = checks.slowdown_notes(TrainSettings(), "float32")
    assert "onednn are left out: illegal instruction" in output
