"""Checkpoints: bit for bit, whole or not at all, damage noticed, room told."""

import os
import subprocess

import pytest
import torch
from each_step import after_each_step

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.train import checkpoint, optimizers
from lmworks.train.checkpoint import State
from lmworks.train.settings import TrainSettings


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", "")


def state(number: float = 1.0) -> State:
    tensors = {"a": torch.full((5,), number), "b.c": torch.arange(6).reshape(2, 3).t(), "h": torch.ones(3).bfloat16()}
    return State(tensors, {"loss": 0.1 + number, "best": {"step": 3}})


def test_it_comes_back_bit_for_bit(run):
    checkpoint.save(run, 7, state())
    step, result = checkpoint.newest(run)
    assert step == 7
    assert result.values == {"step": 7, "loss": 1.1, "best": {"step": 3}}
    for name, tensor in state().tensors.items():
        assert torch.equal(result.tensors[name], tensor)
        assert result.tensors[name].dtype == tensor.dtype


def test_there_is_none_before_the_first(run):
    assert checkpoint.newest(run) is None


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "sums.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_damaged_newest_is_reported_and_the_checkpoint_before_it_is_used(run, file, how):
    for step in (9, 10, 100):
        checkpoint.save(run, step, state(step))
    path = run.checkpoints / "checkpoint-100" / file
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    messages = []
    step, result = checkpoint.newest(run, messages.append)
    assert step == 10
    assert result.tensors["a"][0] == 10
    assert len(messages) == 1
    assert "checkpoint-100" in messages[0]


def test_damaged_checkpoints_alone_are_an_error(run):
    checkpoint.save(run, 1, state())
    (run.checkpoints / "checkpoint-1" / "state.json").write_text("{")
    with pytest.raises(InputError, match="no checkpoint of this run is intact"):
        checkpoint.newest(run, lambda text: None)


def test_the_newest_and_the_best_are_kept(run):
    for step in (1, 2, 3, 10, 20):
        checkpoint.save(run, step, state())
    checkpoint.prune(run, 2, best=2)
    assert checkpoint.steps(run) == [2, 10, 20]


def test_half_a_checkpoint_is_none(run, monkeypatch):
    checkpoint.save(run, 1, state())

    def broken(*_):
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(checkpoint, "sha256", broken)
    with pytest.raises(RuntimeError):
        checkpoint.save(run, 2, state())
    assert [path.name for path in run.checkpoints.iterdir()] == ["checkpoint-1"]


def test_weights_and_moments_come_back(make_network):
    def steps(network, optimizer, count):
        for _ in range(count):
            network(torch.arange(5)[None]).logits.square().mean().backward()
            optimizer.advance(1e-2)

    networks = [make_network(), make_network()]
    created = [optimizers.make(network, TrainSettings(learning_rate=1e-2)) for network in networks]
    steps(networks[0], created[0], 3)
    tensors = checkpoint.capture(dict(networks[0].named_parameters()), created[0].state)
    checkpoint.restore(tensors, dict(networks[1].named_parameters()), created[1].restore)
    for network, optimizer in zip(networks, created, strict=True):
        steps(network, optimizer, 2)
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_full_disk_is_an_error_before_anything_is_written(run, monkeypatch):
    checkpoint.save(run, 1, state())
    monkeypatch.setattr("lmworks.base.files.free_disk_space", lambda path: 10)
    with pytest.raises(InputError, match="no room on the disk for the checkpoint of step 2"):
        checkpoint.save(run, 2, state())
    assert checkpoint.steps(run) == [1]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte, where this user may make one."""
    place = tmp_path / "small"
    place.mkdir()
    created = os.name == "posix" and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not created or created.returncode:
        pytest.skip("this user may not mount a small tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(small_disk, monkeypatch):
    run = RunFolder.create(small_disk / "run", "")
    checkpoint.save(run, 1, state())
    monkeypatch.setattr(checkpoint, "check_disk_space", lambda *_: None)  # as if it filled up meanwhile
    with pytest.raises(InputError, match="checkpoint-2: no room left on the disk"):
        checkpoint.save(run, 2, State({"big": torch.zeros(500_000)}))
    assert checkpoint.newest(run)[0] == 1
    assert [path.name for path in run.checkpoints.iterdir()] == ["checkpoint-1"]


def test_training_stops_at_a_full_disk_and_goes_on_when_there_is_room(small_disk, make_network, make_examples):
    from lmworks.train.hooks import Hooks
    from lmworks.train.loop import train

    run = RunFolder.create(small_disk / "run", "")
    settings = TrainSettings(batch_size=4, steps=6, checkpoint_every=2, learning_rate=1e-2, precision="float32")
    ballast = small_disk / "ballast"

    def fill(line):
        if line["step"] == 3:
            left = os.statvfs(small_disk)
            ballast.write_bytes(b"0" * (left.f_bavail * left.f_bsize - 8192))

    with after_each_step(fill), pytest.raises(InputError, match="no room"):
        train(make_network(), make_examples(), settings, run, Hooks(quiet=True))
    assert checkpoint.steps(run) == [2]
    ballast.unlink()
    run.close()
    outcome = train(make_network(), make_examples(), settings, RunFolder(run.path), Hooks(quiet=True))
    assert outcome.reason == "finished"
    whole = RunFolder.create(small_disk.parent / "whole", "")
    train(make_network(), make_examples(), settings, whole, Hooks(quiet=True))
    assert [e["loss"] for e in run.events("step")] == [e["loss"] for e in whole.events("step")]
    assert not run.events("divergence")
