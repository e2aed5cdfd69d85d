"""lmworks doctor: what it tells is what is so."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import pytest

from lmworks.base import machine, measurements
from lmworks.base.probes import Rates
from lmworks.base.processor import processor
from lmworks.commands import doctor
from lmworks.commands.main import main
from lmworks.kernels import product_rates
from lmworks.kernels.product_rates import ProductRates, limit_shapes
from lmworks.kernels.reading import ReadingRates

MADE = Rates(100.0, 300.0, 90.0, 20.0, threads=2, torch=version("torch"), seconds=1.0, share=0.5)


@pytest.fixture(autouse=True)
def measured(monkeypatch, tmp_path):
    """An empty cache in a home of its own; the measurement itself has its own test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LMWORKS_ENGINE_CACHE")  # that of all tests
    monkeypatch.setenv("LMWORKS_OFFLINE", "1")
    monkeypatch.setattr(machine, "_known", {})
    monkeypatch.setattr(machine, "measure_apart", lambda threads, free: MADE)


def test_json_has_processor_rates_and_packages(capsys, tmp_path):
    assert main(["doctor", "--json"]) == 0
    text = capsys.readouterr().out
    output = json.loads(text)
    assert output["processor"]["name"] == processor().name
    assert output["rates"]["bfloat16"] == 300.0
    assert output["precision"]["auto"] == "bfloat16"
    assert output["packages"]["torch"] == version("torch")
    assert set(output["extras"]) == {"hub", "serve", "tensorboard"}
    assert output["offline"] is True
    assert output["disk"]["cache"] == "~/cache"
    assert str(tmp_path) not in text  # a bug report holds no names of the person's


def test_the_table_tells_the_same(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for words in (processor().name, "300", "GFLOP/s", "GB/s", "nothing is cached"):
        assert words in shown


def test_a_disturbed_rate_is_marked(monkeypatch, capsys):
    for share, disturbed in ((0.5, True), (1.0, False)):
        monkeypatch.setattr(machine, "_known", {})
        monkeypatch.setattr(machine, "measure_apart", lambda threads, free, share=share: replace(MADE, share=share))
        monkeypatch.setattr(doctor, "reading_rates", lambda refresh, share=share: ReadingRates({"1": 9.0}, share))
        rates = ProductRates(shares=dict.fromkeys(limit_shapes("float32"), share))
        monkeypatch.setattr(doctor.product_rates, "product_rates", lambda shapes, refresh=False, rates=rates: rates)
        assert main(["doctor", "--refresh"]) == 0
        lines = capsys.readouterr().out.splitlines()
        for title in ("matrix products, float32", "float32 by the fastest", "reading memory", "reading 1 MB"):
            (line,) = (line for line in lines if line.startswith(title))
            assert ("while other programs ran: with 50% of the processor" in line) == disturbed
        assert any("lmworks doctor --refresh" in line for line in lines) == disturbed


def test_a_missing_extra_says_how_to_get_it(monkeypatch, capsys):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "tensorboard" else real(name))
    assert main(["doctor"]) == 0
    assert "missing tensorboard: pip install 'lmworks[tensorboard]'" in capsys.readouterr().out


def test_refresh_measures_again(monkeypatch):
    assert main(["doctor", "--json"]) == 0
    calls: list[int] = []
    monkeypatch.setattr(machine, "measure_apart", lambda threads, free: calls.append(threads) or MADE)
    assert main(["doctor", "--json"]) == 0
    assert calls == []
    other = ProductRates({"of a run": {"pytorch": 1.0}}, {"onednn": "failed"})
    measurements.write(product_rates.MEASUREMENT, asdict(other))
    assert main(["doctor", "--refresh"]) == 0
    assert len(calls) == 1
    assert "of a run" not in ProductRates.cached().gflops  # its run measures it again, with onednn
    assert ProductRates.cached().faults == {}


def test_paths_outside_of_the_home_stay(tmp_path):
    from lmworks.commands.models import without_home

    assert without_home(Path("/somewhere/else")) == "/somewhere/else"
    assert without_home(tmp_path / "a") == "~/a"


def test_without_kernels_it_says_why_and_what_it_costs_here(monkeypatch, capsys):
    from lmworks.kernels import native_module

    monkeypatch.setenv("LMWORKS_KERNELS", "off")
    native_module._load.cache_clear()
    try:
        assert main(["doctor"]) == 0
    finally:
        native_module._load.cache_clear()
    shown = " ".join(capsys.readouterr().out.split())
    assert "switched off by LMWORKS_KERNELS=off" in shown
    assert "% of this machine's float32 matrix rate" in shown


def test_what_the_extra_of_the_hub_adds_is_said_for_each_of_its_packages(monkeypatch):
    packages = doctor._requirements("hub")
    assert {"huggingface_hub", "datasets"} == set(packages)
    for package in packages:  # one may be there without the other
        monkeypatch.setattr(doctor, "_version", lambda name, package=package: None if name == package else "1")
        assert doctor._extra("hub")["missing"] == [package]
        assert f"({package})" in doctor._extra("hub")["adds"]
