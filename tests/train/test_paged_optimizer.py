"""A paged optimizer: the trajectory of one in memory bit for bit, resumed too, in a file that nobody sees."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny_model import save_questions, save_tiny, settings

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.train import checkpoint, loop, optimizers, paged_memory
from lmworks.train.paged_memory import PagedMemory, paged_bytes
from lmworks.train.settings import TrainSettings

pytestmark = pytest.mark.skipif(not paged_memory.is_available(), reason="this system takes no pages out of memory")


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def run(folder: Path, data: Path, out: Path, method: str = "full", **train: object) -> Path:
    values = settings()
    values["train"] |= {"steps": 6, "checkpoint_every": 2, "learning_rate": 1e-3, **train}
    given = {"source": str(data), **values.pop("data")}
    return lmworks.tune(str(folder), given, method=method, out=out, **values).folder


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in RunFolder(folder).events("step")]


def test_tensors_in_a_file_keep_what_was_written_when_they_are_released(tmp_path: Path) -> None:
    shapes = [((3, 5), torch.float32), ((7,), torch.uint8), ((2000,), torch.float32)]
    memory = PagedMemory(tmp_path, sum(paged_bytes(*shape) for shape in shapes), "tensors")
    tensors = [memory.zeros(*shape) for shape in shapes]
    assert not any(tensor.any() for tensor in tensors)
    for number, tensor in enumerate(tensors, 1):
        tensor.fill_(number)
        memory.release()
    assert [tensor.unique().tolist() for tensor in tensors] == [[1], [2], [3]]
    assert list(tmp_path.iterdir()) == []


def test_released_tensors_leave_the_memory_of_the_process(tmp_path: Path) -> None:
    def held() -> int:
        return int(Path("/proc/self/statm").read_text().split()[2])

    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not tell")
    size = 1 << 26
    memory = PagedMemory(tmp_path, size, "tensors")
    before = held()
    memory.zeros((size,), torch.uint8).fill_(1)
    pages = size // 4096
    assert held() > before + 0.9 * pages
    memory.release()
    assert held() < before + 0.1 * pages


def test_without_room_on_the_disk_it_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("lmworks.base.files.free_disk_space", lambda path: 10)
    with pytest.raises(InputError, match="no room on the disk for the optimizer's state"):
        PagedMemory(tmp_path, 5000, "the optimizer's state")


@pytest.mark.parametrize("portion", [1, 1 << 26])
@pytest.mark.parametrize("state", ["float32", "int8"])
@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "pytorch"])
def test_its_trajectory_is_that_of_one_in_memory_bit_for_bit(
    folder: Path, tmp_path: Path, state: str, portion: int, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "PORTION_BYTES", portion)
    if not kernels:
        monkeypatch.setattr(optimizers.adamw_kernel, "can_run", lambda *_: False)
        monkeypatch.setattr(optimizers, "supports", lambda *_: False)
    networks = []
    for paged in (tmp_path, None):
        network = lmworks.load(folder).network.requires_grad_(True)
        optimizer = optimizers.make(network, TrainSettings(optimizer_state=state, paged_optimizer=True), folder=paged)
        for step in range(4):
            network(torch.arange(10)[None] + step).logits.square().mean().backward()
            optimizer.advance(1e-3, 2.0, 1.0)
        networks.append((network, optimizer))
    (paged_network, paged_optimizer), (plain, in_memory) = networks
    assert plain.state_dict().keys() == paged_network.state_dict().keys()
    for own, other in zip(paged_network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(own, other)
        expected = in_memory.state[other]
        assert all(torch.equal(value, expected[name]) for name, value in paged_optimizer.state[own].items())
    largest = max(expected["exp_avg"].nbytes for expected in in_memory.state.values())
    page = paged_bytes((1,), torch.float32)
    if portion == 1:  # the moments of one weight at a time
        assert paged_optimizer.held_bytes <= 2 * (largest + page) + 2 * page
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_goes_on_bit_for_bit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save_questions(tmp_path / "faq.jsonl")
    plain = run(folder, data, tmp_path / "plain")
    whole = run(folder, data, tmp_path / "whole", paged_optimizer=True)
    write = RunFolder.write

    def stop(self: RunFolder, event: str, **fields: object) -> object:
        if event == "step" and fields["step"] == 4:
            raise RuntimeError("killed")
        return write(self, event, **fields)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write", stop)
        with pytest.raises(RuntimeError, match="killed"):
            run(folder, data, tmp_path / "killed", paged_optimizer=True)
    lmworks.resume(tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(whole) == losses(plain)
    assert {path.name for path in whole.iterdir()} == {path.name for path in plain.iterdir()}
    states = [RunFolder(place).checkpoints / "checkpoint-6" / checkpoint.TENSORS for place in (whole, plain)]
    assert states[0].read_bytes() == states[1].read_bytes()
    with safe_open(states[0], "pt") as file:
        assert {name.split(".")[0] for name in file.keys()} == {"parameter", "optimizer"}  # noqa: SIM118


def test_only_a_tensor_at_a_time_is_in_memory_while_a_checkpoint_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[int] = []
    monkeypatch.setattr(optimizers.AdamW, "release", lambda self: released.append(len(self.state)))
    count: list[int] = []
    save = checkpoint.save

    def counted(*arguments: object) -> object:
        before = len(released)
        result = save(*arguments)  # type: ignore[arg-type]
        count.append(len(released) - before)
        return result

    monkeypatch.setattr(loop.checkpoint, "save", counted)
    run(folder, save_questions(tmp_path / "faq.jsonl"), tmp_path / "run", steps=1, paged_optimizer=True)
    tensors = 4 * sum(1 for _ in lmworks.load(folder).network.parameters())  # weight, step, two moments
    assert count == [tensors]
