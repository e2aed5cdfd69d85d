"""Levels, what rounding to them costs, AdamW with moments in them beside torch's own."""

import pytest
import torch
from each_step import after_each_step

from lmworks.adapt.low_rank import LoRALinear
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.train import checkpoint, eight_bit, optimizers
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.settings import STATE_BYTES, TrainSettings

CPU = torch.device("cpu")
LEVELS = {"signed": eight_bit.signed(CPU), "unsigned": eight_bit.unsigned(CPU)}


def through(values: torch.Tensor, levels: eight_bit.Levels) -> torch.Tensor:
    codes, scales = torch.empty(len(values), dtype=torch.uint8), torch.empty(eight_bit.num_scales(len(values)))
    eight_bit.quantize(values, levels, codes, scales)
    return eight_bit.dequantize(codes, levels, scales)


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
def test_levels_rise_and_stay_as_they_are(levels):
    assert len(levels.values) == 256
    assert (levels.values.diff() > 0).all()
    assert levels.values[-1] == 1
    assert torch.equal(through(levels.values, levels), levels.values)


def test_the_second_moments_have_no_zero_and_the_first_ones_have():
    assert LEVELS["unsigned"].values[0] == pytest.approx(0.5e-7)
    assert (LEVELS["signed"].values == 0).sum() == 1


@pytest.mark.parametrize("count", [1, 255, 256, 257, 5000])
@pytest.mark.parametrize("name", LEVELS)
def test_each_number_becomes_the_level_of_its_part(name, count):
    """A decade's parts are of equal size, so the level is at most half a part away."""
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)) ** 5
    values = values.abs() if name == "unsigned" else values
    result = through(values, LEVELS[name])
    for begin in range(0, count, eight_bit.BLOCK):
        block, restored = values[begin : begin + eight_bit.BLOCK], result[begin : begin + eight_bit.BLOCK]
        largest = block[block.abs().argmax()]
        assert restored[block.abs().argmax()] == largest
        fractions = block / largest
        # float16 rounds to 11 binary digits, and below 2^-14 to multiples of 2^-24
        rounding = fractions.abs() * 2**-11 + 2**-25
        half_part = half_part_at((fractions.abs() + rounding), more=int(name == "unsigned"))
        assert ((restored / largest - fractions).abs() <= half_part + rounding + 1e-7).all()


def half_part_at(fractions: torch.Tensor, more: int) -> torch.Tensor:
    decade = fractions.log10().floor().clamp(-7, -1) + 7
    return 0.45 * 10 ** (decade - 6) / 2 ** (decade + more)


@pytest.mark.parametrize("size", [4096, 5000])
def test_the_native_step_is_the_definition(size, monkeypatch):
    """A few steps with the kernel and without: moments next to a part's edge may become either part's level."""
    results = []
    for native in (True, False):
        parameter = torch.nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(0)))
        optimizer = optimizers.EightBitAdamW([{"params": [parameter], "weight_decay": 0.01}])
        if not native:
            monkeypatch.setattr(optimizers, "supports", lambda *tensors: False)
        random = torch.Generator().manual_seed(1)
        for _ in range(5):
            parameter.grad = torch.randn(size, generator=random) ** 3
            optimizer.advance(1e-2)
        state = optimizer.state[parameter]
        moments = [
            eight_bit.dequantize(state[name], LEVELS[levels], state[f"{name}_scale"])
            for name, levels in (("exp_avg", "signed"), ("exp_avg_sq", "unsigned"))
        ]
        results.append((parameter.detach(), *moments))
    for with_kernel, without in zip(*results, strict=True):
        difference = (with_kernel - without).abs()
        assert difference.max() <= 0.02 * without.abs().max()
        assert (difference > 1e-5 * without.abs().max()).float().mean() < 0.05


@pytest.mark.parametrize("name", LEVELS)
def test_large_shares_lose_little(name):
    """From a tenth of the block's largest number on, at most half a step between levels: 0.9/64 or 0.9/128 of it."""
    values = torch.linspace(0.1, 1.0, 256)
    step = 0.9 / (64 if name == "signed" else 128)
    assert ((through(values, LEVELS[name]) - values).abs() <= step / 2 + 2**-11).all()


def test_zeros_and_blocks_of_zeros_stay_zero():
    values = torch.zeros(600)
    values[300] = -2.0
    result = through(values, LEVELS["signed"])
    assert torch.equal(result, values)
    assert torch.equal(through(torch.zeros(300), LEVELS["unsigned"]), torch.zeros(300))


def problem(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(96, 128), torch.nn.Tanh(), torch.nn.Linear(128, 64))


def trained(state: str, steps: int = 150) -> tuple[list[float], optimizers.AdamW, torch.nn.Module]:
    network, random = problem(), torch.Generator().manual_seed(1)
    truth = torch.randn(96, 64, generator=random) / 10
    optimizer = optimizers.make(network, TrainSettings(optimizer_state=state, weight_decay=0.01, learning_rate=3e-3))
    losses = []
    for _ in range(steps):
        inputs = torch.randn(32, 96, generator=random)
        loss = (network(inputs) - (inputs @ truth).tanh()).square().mean()
        loss.backward()
        norm = optimizers.gradient_norm(network.parameters())
        optimizer.advance(3e-3, norm, 1.0)
        losses.append(loss.item())
    return losses, optimizer, network


def test_the_trajectory_is_float32s_within_two_percent():
    """Of the mean loss of each ten steps."""
    short, exact = (torch.tensor(trained(state)[0]).view(-1, 10).mean(1) for state in ("int8", "float32"))
    assert exact[-1] < exact[0] / 5
    torch.testing.assert_close(short, exact, rtol=0.02, atol=0)


def test_two_bytes_a_weight_and_small_tensors_in_float32():
    _, optimizer, network = trained("int8", 2)
    for name, parameter in network.named_parameters():
        state = optimizer.state[parameter]
        held = sum(value.nbytes for key, value in state.items() if key != "step")
        assert state["step"] == 2
        if name.endswith("bias"):
            assert state["exp_avg"].dtype == torch.float32
        else:
            assert held == STATE_BYTES["int8"] * parameter.numel()
    assert STATE_BYTES["int8"] == 2.03125


def test_long_tensors_move_stretch_by_stretch_as_in_one(monkeypatch):
    """Stretches are whole blocks, so where they end changes nothing."""
    whole = trained("int8", 5)[2]
    monkeypatch.setattr(optimizers, "SLICE_SIZE", 3 * eight_bit.BLOCK)
    for first, other in zip(whole.parameters(), trained("int8", 5)[2].parameters(), strict=True):
        torch.testing.assert_close(first, other, rtol=1e-6, atol=1e-7)


def test_a_step_clips_as_torch_does():
    networks = [problem(), problem()]
    states = {"int8": networks[0], "float32": networks[1]}
    created = [optimizers.make(network, TrainSettings(optimizer_state=state)) for state, network in states.items()]
    for network, optimizer in zip(networks, created, strict=True):
        network(torch.ones(2, 96)).square().sum().backward()
        optimizer.advance(1e-2, optimizers.gradient_norm(network.parameters()), 0.1)
    for first, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(first, other)  # the first step reads no moment: nothing is rounded yet


def test_adapters_too(make_network):
    network = make_network().requires_grad_(False)
    linear = LoRALinear(torch.nn.Linear(1024, 32), 8, 1.0)
    network.layers[0].extra = linear
    linear.lora_A.grad = torch.ones_like(linear.lora_A)
    optimizer = optimizers.make(network, TrainSettings(optimizer_state="int8"))
    optimizer.advance(1e-3)
    assert optimizer.state[linear.lora_A]["exp_avg"].dtype == torch.uint8


SETTINGS = {"batch_size": 4, "steps": 12, "checkpoint_every": 4, "learning_rate": 1e-2, "precision": "float32"}
WIDE = {"hidden_size": 64, "intermediate_size": 96}  # matrices of 4096 numbers and more


def run_of(folder, make_network, make_examples, state: str = "int8", stop: int = 0) -> RunFolder:
    """A run, killed by an error after the step ``stop``."""
    run = RunFolder(folder) if folder.exists() else RunFolder.create(folder, "")

    def stepped(line):
        if line["step"] == stop:
            raise KeyboardInterrupt

    settings = TrainSettings(optimizer_state=state, **SETTINGS)
    network = make_network(**WIDE)
    try:
        with after_each_step(stepped):
            train(network, make_examples(), settings, run, Hooks(quiet=True))
    except KeyboardInterrupt:
        assert stop
    finally:
        run.close()
    return run


def test_stopped_and_resumed_is_never_stopped_bit_for_bit(tmp_path, make_network, make_examples):
    whole = run_of(tmp_path / "whole", make_network, make_examples)
    for stop in (6, 10):
        run_of(tmp_path / "stopped", make_network, make_examples, stop=stop)
    stopped = run_of(tmp_path / "stopped", make_network, make_examples)
    assert [e["loss"] for e in stopped.events("step")] == [e["loss"] for e in whole.events("step")]
    assert not stopped.events("divergence")
    ends = [checkpoint.read(run, 12).tensors for run in (whole, stopped)]
    assert any(tensor.dtype == torch.uint8 for tensor in ends[0].values())
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_run_does_not_go_on_with_another_state(tmp_path, make_network, make_examples):
    run_of(tmp_path / "run", make_network, make_examples, stop=6)
    with pytest.raises(InputError, match=r"other train\.optimizer_state"):
        run_of(tmp_path / "run", make_network, make_examples, "float32")
