"""The loop: what must be equal is equal, and what must stop it stops it."""

import io
import math
import os
import signal

import pytest
import torch
from each_step import after_each_step
from rich.console import Console

from lmworks.adapt.adapters import adapters, detach
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.model import sizes
from lmworks.model.training_cost import Workload
from lmworks.train import checkpoint, monitor
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.losses import terms
from lmworks.train.progress import TrainingProgress
from lmworks.train.settings import TrainSettings
from lmworks.train.step import accumulate_gradients, batches_of, cast_frozen_weights, step_flops

CPU = torch.device("cpu")


def settings(**changes) -> TrainSettings:
    values = {"batch_size": 4, "epochs": 2, "learning_rate": 1e-2, "precision": "float32", "threads": 1}
    return TrainSettings(**(values | changes))


def losses(run: RunFolder) -> list[float]:
    return [event["loss"] for event in run.events() if event["event"] == "step"]


@pytest.fixture
def fresh(tmp_path):
    """Makes new run folders."""
    count = iter(range(100))
    return lambda: RunFolder.create(tmp_path / f"run{next(count)}", "")


@pytest.fixture
def go(fresh, make_network, make_examples):
    """Trains a new tiny network; gives network, run, outcome."""

    def go(hooks=None, lora=False, examples=None, network=None, run=None, **changes):
        network = network or make_network()
        if lora and not list(adapters(network)):
            LoRA(LoRASettings(rank=4, target_modules="all-linear", dropout=0.2 if lora == "dropout" else 0)).apply(
                network
            )
        run = run or fresh()
        hooks = hooks or Hooks()
        hooks.quiet = True
        return network, run, train(network, examples or make_examples(), settings(**changes), run, hooks)

    return go


def test_it_learns_and_tells_every_step(go):
    network, run, outcome = go(epochs=8)
    result = losses(run)
    assert len(result) == outcome.step == 24
    assert outcome.reason == "finished"
    assert result[-1] < 0.8 * result[0]
    step = next(event for event in run.events() if event["event"] == "step")
    assert step["tokens"] > step["targets"] > 0
    assert step["gradient_norm"] > 0
    assert step["seconds"] > 0
    session = next(event for event in run.events() if event["event"] == "session")
    assert session["trainable"] == session["parameters"] == sum(p.numel() for p in network.parameters())


def test_packed_padded_and_alone_are_one_loss_and_one_gradient(make_network, make_examples):
    network, examples = make_network().train(), make_examples(8)
    result = []
    for how in (
        settings(row_tokens=4096),
        settings(row_tokens=30),
        settings(row_tokens=1),
        settings(packing=False),
    ):
        network.zero_grad()
        created = accumulate_gradients(network, examples, how, 1, "float32", CPU)
        result.append((created, [p.grad.clone() for p in network.parameters()], len(batches_of(examples, how))))
    assert next(rows for _, _, rows in result) == 1
    assert result[2][2] == 8
    assert 1 < result[1][2] < 8
    for created, gradients, _ in result[1:]:
        assert created.loss == pytest.approx(result[0][0].loss, rel=1e-6)
        assert created.targets == result[0][0].targets
        for first, other in zip(gradients, result[0][1], strict=True):
            torch.testing.assert_close(first, other, rtol=1e-4, atol=1e-6)


def test_one_row_of_eight_and_eight_rows_of_one_go_the_same_way(go):
    first, run, _ = go(row_tokens=4096, batch_size=8, epochs=4)
    other, again, _ = go(row_tokens=1, batch_size=8, epochs=4)
    assert losses(run) == pytest.approx(losses(again), rel=1e-4)
    for a, b in zip(first.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


def test_loss_is_on_the_marked_tokens_only(make_network, make_examples):
    network, examples = make_network(), make_examples(5)
    created = accumulate_gradients(network, examples, settings(), 1, "float32", CPU)
    expected = targets = 0.0
    for example in examples:
        ids = torch.from_numpy(example.ids).long()
        marked = torch.from_numpy(example.loss)[1:]
        each = torch.nn.functional.cross_entropy(network(ids[None]).logits[0, :-1], ids[1:], reduction="none")
        expected += each[marked].sum().item()
        targets += int(marked.sum())
    assert created.targets == targets
    assert created.loss == pytest.approx(expected / targets, rel=1e-5)


def test_recomputing_changes_nothing_but_memory(go):
    _, run, _ = go(lora="dropout")
    network, again, _ = go(lora="dropout", recompute=1)
    assert losses(run) == pytest.approx(losses(again), rel=1e-5)
    assert network.recompute == 0


def test_an_adapter_leaves_its_base_as_it_was(go, make_network, make_examples):
    base = {name: tensor.clone() for name, tensor in make_network().state_dict().items()}
    for precision in ("float32", "bfloat16"):
        network, run, _ = go(lora=True, epochs=4, precision=precision)
        assert losses(run)[-1] < losses(run)[0]
        detach(network)
        assert all(torch.equal(tensor, base[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("lora", [False, True])
def test_bfloat16_follows_float32(go, lora):
    _, exact, _ = go(lora=lora)
    network, run, _ = go(lora=lora, precision="bfloat16")
    assert losses(run) == pytest.approx(losses(exact), rel=3e-2)
    assert losses(run) != losses(exact)
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_frozen_weights_are_cast_and_come_back_bit_for_bit(make_network):
    network = make_network()
    LoRA(LoRASettings(rank=2)).apply(network)
    before = network.embed_tokens.weight.clone()
    with cast_frozen_weights(network, "bfloat16"):
        assert network.embed_tokens.weight.dtype == torch.bfloat16
        assert all(p.dtype == torch.float32 for p in network.parameters() if p.requires_grad)
    assert torch.equal(network.embed_tokens.weight, before)


def test_dropout_follows_the_seed_and_the_step(go):
    _, first, _ = go(lora="dropout")
    torch.manual_seed(99)
    _, other, _ = go(lora="dropout")
    _, third, _ = go(lora="dropout", seed=1)
    assert losses(first) == losses(other) != losses(third)


def test_the_worlds_random_numbers_are_left_alone(go, make_network):
    network = make_network()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    go(network=network, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_patience_ends_it_and_the_best_weights_are_there(go):
    remaining = {}

    def evaluate(network, step):
        assert not network.training
        remaining[step] = [p.detach().clone() for p in network.parameters()]
        return {"loss": {1: 3.0, 2: 1.0, 3: 2.0, 4: 1.5}[step]}

    network, run, outcome = go(Hooks(evaluate=evaluate), epochs=9, evaluate_every=1, patience=2, keep_checkpoints=1)
    assert (outcome.reason, outcome.step, outcome.best_step) == ("early", 4, 2)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), remaining[2], strict=True))
    assert checkpoint.steps(run) == [2, 4]
    output = [event for event in run.events() if event["event"] == "evaluation"]
    assert [event["held_out"]["loss"] for event in output] == [3.0, 1.0, 2.0, 1.5]


def test_it_evaluates_each_epoch_and_at_the_end(go):
    seen = []
    go(Hooks(evaluate=lambda network, step: seen.append(step) or {"loss": 1.0}), steps=7)
    assert seen == [3, 6, 7]


def test_a_finished_run_stays_finished(go):
    _network, run, _ = go()
    before = losses(run)
    _, _, outcome = go(run=run)
    assert outcome.reason == "finished"
    assert losses(run) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_after_a_checkpoint_and_it_goes_on(go, number):
    before = signal.getsignal(number)
    _, whole, _ = go(lora="dropout")

    def stop(line):
        if line["step"] == 2:
            os.kill(os.getpid(), number)

    with after_each_step(stop):
        _, run, outcome = go(lora="dropout")
    assert outcome.reason == "interrupted"
    assert outcome.step == 2
    assert checkpoint.steps(run) == [2]
    _, _, outcome = go(run=run, lora="dropout")
    assert outcome.reason == "finished"
    assert losses(run) == losses(whole)
    assert signal.getsignal(number) is before


def test_a_loss_that_is_no_number_stops_it_and_keeps_the_last_good_checkpoint(go, make_network):
    network = make_network()

    def poison(line):
        if line["step"] == 2:
            network.embed_tokens.weight.data[0, 0] = math.nan
            network.norm.weight.data.fill_(math.nan)

    fault = r"step 3 is not a finite number.*last checkpoint is of step 2"
    with after_each_step(poison), pytest.raises(InputError, match=fault) as raised:
        go(network=network, checkpoint_every=1)
    run = RunFolder(raised.value.place)
    assert checkpoint.steps(run) == [1, 2]
    assert [event["quantity"] for event in run.events() if event["event"] == "failure"] == ["loss"]


def test_other_data_or_settings_cannot_resume(go, make_examples):
    _, run, _ = go(steps=4, checkpoint_every=2)
    with pytest.raises(InputError, match="other data"):
        go(run=run, steps=4, examples=make_examples(seed=5))
    with pytest.raises(InputError, match="other settings"):
        go(run=run, steps=4, learning_rate=1e-3)
    go(run=run, steps=4, keep_checkpoints=1)


def test_nothing_to_train_is_said(go, make_network):
    with pytest.raises(InputError, match="requires a gradient"):
        go(network=make_network().requires_grad_(False))


def test_evaluation_is_made_in_the_precision_of_training(go):
    seen = []

    def evaluate(network, step):
        seen.append(network.embed_tokens.weight.dtype)
        return {"loss": 1.0}

    go(Hooks(evaluate=evaluate), lora=True, steps=1, precision="bfloat16")
    assert seen == [torch.bfloat16]


def test_steps_without_targets_change_nothing(go, make_examples):
    from dataclasses import replace

    nothing = [replace(example, loss=example.loss & False) for example in make_examples(4)]
    _network, run, _ = go(examples=nothing, epochs=1)
    assert losses(run) == [0.0]


def test_flops_count_less_where_weights_are_frozen(make_network):
    network = make_network()
    workload = Workload([10, 20], [], 12)
    full = step_flops(network, workload)
    assert full == 3 * sizes.forward_flops(network.config, 30, 12, [10, 20]).total
    LoRA(LoRASettings(rank=2, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])).apply(network)
    lora = step_flops(network, workload)
    assert 0.6 < lora / full < 0.8
    assert step_flops(network, workload, True) > lora


def test_tensorboard_events_are_written(go):
    pytest.importorskip("tensorboard")
    _, run, _ = go(tensorboard=True, steps=2)
    assert list((run.path / "tensorboard").glob("events*"))


def test_the_loss_is_what_the_function_says(go, make_network, make_examples):
    _, run, _ = go(steps=1, batch_size=12)
    network = make_network()
    batches = batches_of(make_examples(), settings())
    parts = [terms(network, batch)["language"] for batch in batches]
    expected = sum(part.total.item() for part in parts) / sum(part.weight for part in parts)
    assert losses(run)[0] == pytest.approx(expected, rel=1e-6)


def test_samples_are_asked_after_each_evaluation_but_the_last_and_once(go):
    """After the last step they are written once more anyway, with all that is measured after training."""

    def sampled(network, step):
        assert not network.training
        return [{"prompt": "a", "answer": str(step)}]

    hooks = Hooks(evaluate=lambda network, step: {"loss": 1.0}, sample=sampled)
    _, run, _ = go(hooks, steps=6, evaluate_every=2)
    result = run.events("samples")
    assert [(event["when"], event["step"], event["items"][0]["answer"]) for event in result] == [
        ("step", 2, "2"),
        ("step", 4, "4"),
    ]
    go(hooks, run=run, steps=6, evaluate_every=2)
    assert len(run.events("samples")) == 2


def test_the_last_step_of_an_early_stop_is_not_sampled_during_training(go):
    """It is sampled with all that is measured after training, as the last of all planned steps is."""
    held_out = {1: 2.0, 2: 1.0, 3: 1.5, 4: 1.5}
    hooks = Hooks(
        evaluate=lambda network, step: {"loss": held_out[step]},
        sample=lambda network, step: [{"prompt": "a", "answer": str(step)}],
    )
    _, run, outcome = go(hooks, epochs=9, evaluate_every=1, patience=2)
    assert (outcome.reason, outcome.step) == ("early", 4)
    assert [event["step"] for event in run.events("samples")] == [1, 2, 3]


def test_many_short_epochs_are_measured_twenty_times(go, make_examples):
    seen = []
    hooks = Hooks(evaluate=lambda network, step: seen.append(step) or {"loss": 1.0})
    go(hooks, steps=100, batch_size=4, examples=make_examples(4))
    assert seen == list(range(5, 101, 5))
    assert monitor.evaluation_interval(7, 3) == 3
    assert monitor.evaluation_interval(100, 3) == 6


@pytest.mark.parametrize(("hidden", "said"), [(1, "(1 evaluation in between"), (3, "(3 evaluations in between")])
def test_evaluations_that_were_not_shown_are_counted(hidden, said):
    console = Console(file=io.StringIO(), width=200)
    progress = TrainingProgress(total=hidden + 2, console=console)
    for step in range(1, hidden + 3):
        progress.show_evaluation(["loss"], step)
    assert said in console.file.getvalue()


def test_quick_evaluations_do_not_flood_the_screen(go):
    console = Console(file=io.StringIO(), width=200)
    hooks = Hooks(evaluate=lambda network, step: {"loss": 1.5, "accuracy": 0.5}, console=console)
    _, run, _ = go(hooks, steps=40, evaluate_every=1)
    assert len(run.events("evaluation")) == 40
    messages = console.file.getvalue().splitlines()
    assert len(messages) < 30
    assert any("step 40: held out: loss 1.5000  accuracy 0.5000" in line for line in messages)
    assert any("see the journal" in line for line in messages)
