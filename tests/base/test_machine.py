"""The machine: what it says of itself is so, and what is measured is kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lmworks.base import energy, machine, measurements, probes, process_memory, processor
from lmworks.base.energy import EnergyMeter
from lmworks.base.errors import InputError
from lmworks.base.probes import Rates
from lmworks.base.process_memory import reset_peak_memory

MADE = Rates(100.0, 300.0, 90.0, 20.0, threads=2, torch="x", seconds=1.0, share=1.0)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """An empty cache, and a measurement that the test decides; counts how often it was made."""
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "_known", {})
    created: list[Rates] = [MADE]
    calls: list[int] = []

    def measure(threads: int, free: int) -> Rates:
        calls.append(threads)
        return created[0]

    monkeypatch.setattr(machine, "measure_apart", measure)
    return created, calls, tmp_path / "measurements.json"


def test_the_processor_says_what_linux_says():
    item = processor.processor()
    assert item.name
    assert 1 <= item.cores <= item.logical
    if sys.platform == "linux":
        with open("/proc/cpuinfo") as file:
            text = file.read()
        assert all(word in text for word in item.instructions)
        assert item.logical == len(os.sched_getaffinity(0))


def test_threads_follow_the_affinity():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no processor affinity")
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from lmworks.base.processor import processor; print(processor().cores, processor().logical)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["1", "1"]


def test_use_threads():
    import torch

    before = torch.get_num_threads()
    try:
        assert processor.use_threads(1) == torch.get_num_threads() == 1
        assert processor.use_threads(None) == torch.get_num_threads() == processor.processor().cores
        with pytest.raises(InputError):
            processor.use_threads(0)
    finally:
        torch.set_num_threads(before)


def test_a_control_group_limits_cores(monkeypatch, tmp_path):
    for module in (processor, process_memory):
        monkeypatch.setattr(module, "control_groups", lambda controller: [tmp_path / "inner", tmp_path])
    assert processor._quota() is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert processor._quota() == 2
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "inner" / "cpu.cfs_period_us").write_text("100000\n")
    assert processor._quota() == 1
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert process_memory.memory() == (1_000_000, 600_000)


def test_rates_are_measured_once_and_kept(measured, monkeypatch):
    _, calls, place = measured
    assert machine.rates() == MADE
    assert machine.rates() == MADE
    monkeypatch.setattr(machine, "_known", {})  # another process
    assert machine.rates() == MADE
    assert len(calls) == 1
    assert machine.rates(refresh=True) == MADE
    assert len(calls) == 2
    (key,) = json.loads(place.read_text())
    assert processor.processor().name in key
    place.write_text("damaged")
    monkeypatch.setattr(machine, "_known", {})
    assert machine.rates() == MADE


def test_a_disturbed_measurement_is_improved_by_later_processes(measured, monkeypatch):
    created, calls, _ = measured
    monkeypatch.setattr(measurements, "REPEAT_AFTER", 0.0)
    for share, speed, expected in [(0.3, 10.0, 10.0), (0.5, 50.0, 50.0), (0.4, 30.0, 50.0), (1.0, 99.0, 50.0)]:
        monkeypatch.setattr(machine, "_known", {})
        created[0] = Rates(speed, speed, speed, speed, threads=2, torch="x", seconds=1.0, share=share)
        assert machine.rates().float32 == expected
    assert len(calls) == measurements.TRIES


def test_a_disturbed_measurement_is_not_repeated_at_once(measured, monkeypatch):
    created, calls, _ = measured
    created[0] = Rates(10.0, 10.0, 10.0, 10.0, threads=2, torch="x", seconds=1.0, share=0.3)
    for _ in range(2):
        monkeypatch.setattr(machine, "_known", {})
        assert machine.rates().share == 0.3
    assert len(calls) == 1


def test_rates_are_kept_for_the_threads_that_they_were_measured_with(measured, monkeypatch):
    """PyTorch, which the measurement imports, may set another number."""
    _, calls, _ = measured
    threads = [3]
    monkeypatch.setattr(processor, "threads", lambda: threads[0])
    monkeypatch.setattr(
        machine, "measure_apart", lambda *_: threads.append(threads.pop() + 1) or calls.append(0) or MADE
    )
    machine.rates()
    threads[0] = 3
    monkeypatch.setattr(machine, "_known", {})  # another process
    machine.rates()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("bfloat16", "chosen"), [(300.0, "bfloat16"), (125.0, "bfloat16"), (110.0, "float32"), (0.3, "float32")]
)
def test_auto_follows_the_measurement_and_says_it(measured, bfloat16, chosen):
    created, _, _ = measured
    created[0] = Rates(100.0, bfloat16, 90.0, 20.0, threads=2, torch="x", seconds=1.0, share=1.0)
    name, reason = machine.choose_precision("auto")
    assert name == chosen
    assert f"bfloat16 {bfloat16:,.4g} and float32 100 GFLOP/s" in reason
    assert "other programs" not in reason
    disturbed = machine.choose_precision("auto", machine_rates=replace(created[0], share=0.5))[1]
    assert disturbed.endswith("while other programs ran")
    assert machine.choose_precision("float32") == ("float32", "float32, as asked")
    assert machine.choose_precision("auto", "mps")[0] == "float32"
    for wrong in ("bf16", "float16"):
        with pytest.raises(InputError, match="is no precision"):
            machine.choose_precision(wrong)


def test_a_real_measurement(monkeypatch):
    monkeypatch.setattr(probes, "BUDGET", 0.01)
    monkeypatch.setattr(probes, "ROUNDS", 1)
    import torch

    before = torch.get_num_threads()
    result = probes.measure(1, 64 << 20)
    assert torch.get_num_threads() == before
    assert result.threads == 1
    assert result.float32 > 0
    assert result.memory > 0
    assert 0 < result.share <= 1


def test_measuring_leaves_the_memory_of_this_process_as_it_was():
    import torch  # noqa: F401 - its own memory is not counted

    before = process_memory.peak_memory()
    result = probes.measure_apart(1, 2 << 30)
    assert result.memory > 0
    assert process_memory.peak_memory() - before < 50 << 20


def test_peak_memory_counts_and_can_begin_anew():
    before = process_memory.peak_memory()
    block = bytearray(60_000_000)
    block[::4096] = b"x" * len(block[::4096])
    assert process_memory.peak_memory() >= before
    high = process_memory.peak_memory()
    del block
    process_memory.release_memory()  # a test before may have told glibc to keep freed blocks
    if not reset_peak_memory():
        pytest.skip("this system does not let the peak begin anew")
    assert process_memory.peak_memory() < high


def test_keep_memory_holds_where_glibc_is():
    code = (
        "import os, resource, torch\nfrom lmworks.base import process_memory\nheld = process_memory.keep_memory()\n"
        "def work(): [torch.ones(12_000_000) for _ in range(4)]\n"
        "for _ in range(8): work()\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(5): work()\n"
        "print(held, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    held, faults = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    if held != "True":
        pytest.skip("this C library is not glibc")
    # Without it blocks of more than 32 MB fault in every round; with it, until the heap's layout has settled.
    assert int(faults) < 5 * 4 * 12_000_000 * 4 // 4096 / 2


def test_describe_is_json():
    output = json.loads(json.dumps(machine.describe()))
    assert output["name"] == processor.processor().name
    assert output["memory"] == process_memory.memory()[0]


def test_energy_is_estimated_where_nothing_counts(tmp_path):
    meter = EnergyMeter(tmp_path)
    meter.start()
    sum(range(1_000_000))
    output = meter.stop()
    assert output.how == "estimated"
    assert output.joules > 0
    assert "10 W" in output.assumption


@pytest.mark.parametrize(("seconds", "said"), [(1.2, "1 core-second at"), (1234.0, "1,234 core-seconds at")])
def test_estimated_energy_says_its_work(seconds, said, tmp_path, monkeypatch):
    times = iter((0.0, seconds))
    monkeypatch.setattr(energy, "time", SimpleNamespace(process_time=lambda: next(times)))
    meter = EnergyMeter(tmp_path)
    meter.start()
    assert meter.stop().assumption.startswith(said)


def test_energy_is_read_where_the_processor_counts(tmp_path):
    for name, kind, count in (
        ("intel-rapl:0", "package-0", 900),
        ("intel-rapl:0:0", "core", 5),
        ("amd:1", "package-1", 0),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(f"{kind}\n")
        (tmp_path / name / "energy_uj").write_text(f"{count}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
    meter = EnergyMeter(tmp_path)
    meter.start()
    watchers = [thread for thread in threading.enumerate() if thread.name == "energy meter"]
    assert len(watchers) == 1
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100\n")  # began anew at 1000
    (tmp_path / "amd:1" / "energy_uj").write_text("50\n")
    output = meter.stop()
    assert output.how == "measured"
    assert output.joules == pytest.approx((200 + 50) / 1e6)
    watchers[0].join(timeout=10)
    assert not watchers[0].is_alive()


class FakeNvml:
    """What is used of NVML; one GPU, which counts, or none."""

    class NVMLError(Exception):
        pass

    def __init__(self, counts: bool) -> None:
        self.counts, self.millijoules, self.asked = counts, 7_000_000, []

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if not self.counts:
            raise self.NVMLError("Not Supported")
        return self.millijoules


def test_a_gpu_counts_its_own_energy(tmp_path, monkeypatch):
    nvml = FakeNvml(counts=True)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(energy, "gpu_uuids", lambda device: ["1234-5678"])
    meter = EnergyMeter(tmp_path, "cuda")
    meter.start()
    nvml.millijoules += 900_000
    output = meter.stop()
    assert set(nvml.asked) == {"GPU-1234-5678"}
    assert output.joules == pytest.approx(900, abs=50)  # and what is estimated of the processor
    assert output.how == "estimated"
    assert "by its own counter" in output.assumption


@pytest.mark.parametrize("nvml", [None, FakeNvml(counts=False)], ids=["not installed", "counts none"])
def test_a_gpu_that_is_not_counted_is_said(nvml, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(energy, "gpu_uuids", lambda device: ["GPU-1"])
    meter = EnergyMeter(tmp_path, "cuda")
    meter.start()
    output = meter.stop()
    assert output.how == "estimated"
    assert "GPU is not counted" in output.assumption


def test_freed_pages_are_given_back_above_a_limit():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("this C library is not glibc")
    blocks = [b"x" * 100_000 for _ in range(400)]  # below the size that malloc maps and gives back by itself
    del blocks[::2]
    before = process_memory.resident_memory()
    process_memory.trim_memory(before + (1 << 30))
    assert process_memory.resident_memory() > before - 5_000_000
    process_memory.trim_memory(0)
    assert process_memory.resident_memory() < before - 10_000_000
