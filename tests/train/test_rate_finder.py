"""The range test: it finds where a loss falls fastest, leaves nothing behind, and gives the same each time."""

import math

import pytest
import torch

from lmworks.base.journal import RunFolder
from lmworks.train import optimizers, rate_finder
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.settings import TrainSettings

CPU = torch.device("cpu")


def settings(**changes) -> TrainSettings:
    values = {"batch_size": 4, "steps": 6, "precision": "float32", "threads": 1, "find_learning_rate": True}
    return TrainSettings(**(values | changes))


def find(network, examples):
    optimizer = optimizers.make(network, settings())
    return rate_finder.range_test(network, examples, settings(), None, optimizer, "float32", CPU, 6), optimizer


def test_weights_and_optimizer_are_what_they_were(make_network, make_examples):
    network = make_network(hidden_dropout=0.1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result, optimizer = find(network, make_examples())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in network.parameters())
    again, _ = find(network, make_examples())
    assert again == result
    assert rate_finder.LOWEST < result.best < rate_finder.HIGHEST
    assert result.best in result.rates
    assert len(result.rates) == len(result.losses) <= rate_finder.STEPS
    assert min(rate_finder.smoothed(result.losses)) < result.losses[0]


def test_the_steepest_fall_before_the_lowest_point():
    rates = [10 ** (-6 + place / 10) for place in range(60)]
    falling = [3 - 2 / (1 + math.exp(-(place - 30) / 3)) for place in range(50)] + [9.0] * 10
    result = rate_finder.steepest(rates, falling)
    assert rates[30] < result < rates[45]  # smoothing looks back, so it comes a little later
    assert rate_finder.steepest(rates, [float(place) for place in range(60)]) == rates[0]
    assert rate_finder.steepest([], []) == rate_finder.LOWEST


def test_smoothing_begins_where_the_losses_do():
    assert rate_finder.smoothed([2.0, 2.0, 2.0]) == pytest.approx([2, 2, 2])
    assert rate_finder.smoothed([1.0, 0.0])[1] == pytest.approx(0.09 / 0.19)


def test_training_takes_the_rate_and_a_resumed_run_does_not_look_again(make_network, make_examples, tmp_path):
    run = RunFolder.create(tmp_path / "run", "")
    train(make_network(), make_examples(), settings(warmup=0, schedule="constant"), run, Hooks(quiet=True))
    (event,) = run.events("rate_finder")
    assert {line["learning_rate"] for line in run.events("step")} == {event["learning_rate"]}
    result, _ = find(make_network(), make_examples())
    assert (result.best, result.rates, result.losses) == (event["learning_rate"], event["rates"], event["losses"])
    train(make_network(), make_examples(), settings(warmup=0, schedule="constant"), run, Hooks(quiet=True))
    assert len(run.events("rate_finder")) == 1
    plain = RunFolder.create(tmp_path / "plain", "")
    given = settings(find_learning_rate=False, learning_rate=result.best, warmup=0, schedule="constant")
    train(make_network(), make_examples(), given, plain, Hooks(quiet=True))
    assert [line["loss"] for line in plain.events("step")] == [line["loss"] for line in run.events("step")]
