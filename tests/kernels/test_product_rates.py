"""Which provider multiplies which shape: measured in another process, cached, without providers that crash there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lmworks.base.probes import Rates
from lmworks.kernels import product_rates
from lmworks.kernels.matmul import available
from lmworks.kernels.product_rates import ProductRates, best_rate
from lmworks.kernels.product_shapes import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, ProductShape

SHAPES = [
    str(ProductShape.of_linear("float32", layout, 96, 128, 100))
    for layout in (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT)
]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path))
    monkeypatch.setattr(product_rates, "SECONDS", 0.0)
    monkeypatch.setattr(product_rates, "_measured", set())


def test_a_real_measurement_times_every_provider_and_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = product_rates.product_rates(SHAPES)
    for shape in SHAPES:
        assert set(rates.gflops[shape]) == set(available("float32"))
        assert all(rate > 0 for rate in rates.gflops[shape].values())
    assert rates.faults == {}
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("measured again"))
    assert product_rates.product_rates(SHAPES[:1]) == rates


def test_a_provider_that_crashes_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run

    def crashes(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        providers = command[4:]
        if not providers or "onednn" in providers:
            return real([command[0], "-c", "import os; os.abort()"], **options)  # type: ignore[call-overload,no-any-return]
        shapes = json.loads(str(options["input"]))
        rates = {shape: dict.fromkeys(providers, 1.0) for shape in shapes}
        share = 0.5 if "parts" in providers else 1.0
        printed = json.dumps({"gflops": rates, "shares": dict.fromkeys(shapes, share)})
        return subprocess.CompletedProcess(command, 0, printed, "")

    monkeypatch.setattr(subprocess, "run", crashes)
    rates = product_rates.product_rates(SHAPES)
    assert set(rates.faults) == {"onednn"}
    assert "-6" in rates.faults["onednn"]
    assert all(set(by_provider) == {"pytorch", "parts", "native"} for by_provider in rates.gflops.values())
    assert all(map(rates.is_disturbed, SHAPES))  # one of the providers was


def test_a_disturbed_measurement_is_made_again_by_a_later_process(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, calls = SHAPES[0], []
    results = iter([(100.0, 0.4), (80.0, 0.5), (500.0, 1.0)])

    def measures(shapes: list[str]) -> ProductRates:
        calls.append(shapes)
        rate, share = next(results)
        return ProductRates({shape: {"pytorch": rate}}, shares={shape: share})

    monkeypatch.setattr(product_rates, "_measure_apart", measures)
    product_rates.product_rates([shape])
    monkeypatch.setattr(product_rates, "_measured", set())  # another process
    product_rates.product_rates([shape])
    assert len(calls) == 1  # the same programs are probably still running
    monkeypatch.setattr(product_rates.measurements, "REPEAT_AFTER", 0.0)
    product_rates.forget()
    calls.clear()
    results = iter([(100.0, 0.4), (80.0, 0.5), (500.0, 1.0)])
    for rate, share, count in [(100.0, 0.4, 1), (100.0, 0.5, 2), (100.0, 0.5, 2)]:
        monkeypatch.setattr(product_rates, "_measured", set())  # another process
        for _ in range(2):  # the same process asks again
            rates = product_rates.product_rates([shape])
            assert (rates.gflops[shape]["pytorch"], rates.shares[shape], len(calls)) == (rate, share, count)
            assert rates.is_disturbed(shape)
    rates = product_rates.product_rates([shape], refresh=True)
    assert (rates.gflops[shape]["pytorch"], rates.is_disturbed(shape)) == (500.0, False)


def test_a_refresh_measures_only_the_shapes_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def measures(shapes: list[str]) -> ProductRates:
        calls.append(shapes)
        return ProductRates({shape: {"pytorch": 100.0 / len(calls)} for shape in shapes})

    monkeypatch.setattr(product_rates, "_measure_apart", measures)
    product_rates.product_rates(SHAPES)
    rates = product_rates.product_rates(SHAPES[:1], refresh=True)
    assert calls == [sorted(SHAPES), SHAPES[:1]]
    assert [rates.gflops[shape]["pytorch"] for shape in SHAPES] == [50.0, 100.0, 100.0]
    assert ProductRates.cached() == rates
    product_rates.product_rates(SHAPES)
    assert len(calls) == 2
    product_rates.forget()
    assert ProductRates.cached() == ProductRates()
    product_rates.product_rates(SHAPES[1:])
    assert calls[2:] == [sorted(SHAPES[1:])]


def test_another_provider_is_chosen_where_it_is_clearly_faster() -> None:
    rates = ProductRates(
        {
            "a": {"pytorch": 100.0, "native": 104.0},
            "b": {"pytorch": 100.0, "native": 200.0, "onednn": 210.0},
            "c": {"pytorch": 300.0, "native": 200.0},
        }
    )
    assert rates.choice(["a", "b", "c", "not measured"]) == {"b": "onednn"}


@pytest.mark.parametrize(("bfloat16", "expected"), [(0.3, ["float32"]), (900.0, ["float32", "bfloat16"])])
def test_emulated_bfloat16_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, bfloat16: float, expected: list[str]
) -> None:
    rates = Rates(200.0, bfloat16, 1.0, 20.0, threads=2, torch="x", seconds=1.0, share=1.0)
    monkeypatch.setattr(product_rates.machine, "rates", lambda refresh=False: rates)
    assert product_rates.precisions() == expected


def test_the_limit_is_the_fastest_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_rate("float32") == (0.0, "")
    first, second = product_rates.limit_shapes("float32")
    measured = {first: {"pytorch": 200.0, "native": 150.0}, second: {"pytorch": 100.0, "onednn": 480.0}}
    monkeypatch.setattr(product_rates.measurements, "read", lambda name, kind: ProductRates(measured))
    assert best_rate("float32") == (480.0, "onednn")
    assert product_rates.limit("float32") >= 480e9


def test_a_killed_measurement_is_made_again_by_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    real, killed = subprocess.run, subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    rates = product_rates.product_rates(SHAPES)
    assert rates.gflops == {}
    assert set(rates.faults) == {"parts", "onednn", "native"}
    monkeypatch.setattr(subprocess, "run", real)
    monkeypatch.setattr(product_rates, "_measured", set())  # another process
    rates = product_rates.product_rates(SHAPES)
    assert set(rates.gflops) == set(SHAPES)
    assert rates.faults == {}


@pytest.mark.parametrize(
    "values",
    [
        {"gflops": None},
        {"gflops": []},
        {"gflops": {SHAPES[0]: {"pytorch": "fast"}}},
        {"gflops": {SHAPES[0]: {"pytorch": 9.0}}, "shares": {SHAPES[0]: 0.1}, "tries": {}},
        {"of a later version": 1},
        "nonsense",
    ],
)
def test_a_cache_that_holds_something_else_is_measured_anew(values: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_rates.measurements, "REPEAT_AFTER", 0.0)
    product_rates.measurements.write(product_rates.MEASUREMENT, values)  # type: ignore[arg-type]
    rates = product_rates.product_rates(SHAPES[:1])
    assert set(rates.gflops[SHAPES[0]]) == set(available("float32"))
