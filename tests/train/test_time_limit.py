"""A limit of time: steps that fit are planned, their timing changes nothing, and training stops when time is over."""

import pytest
import torch

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.base.settings import build
from lmworks.train import optimizers
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.settings import TrainSettings
from lmworks.train.time_limit import EVENT, StepTiming, TimeLimit

CPU = torch.device("cpu")


def settings(**changes) -> TrainSettings:
    values = {"batch_size": 4, "steps": 6, "precision": "float32", "threads": 1}
    return TrainSettings(**(values | changes))


class Clock:
    """A clock that goes on by so many seconds whenever it is looked at."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def losses(run: RunFolder) -> list[float]:
    return [line["loss"] for line in run.events("step")]


@pytest.mark.parametrize("state", ["float32", "int8"])
def test_the_timing_changes_nothing(make_network, make_examples, tmp_path, state):
    network = make_network(hidden_dropout=0.1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    given = settings(optimizer_state=state, weight_decay=0.1)
    optimizer = optimizers.make(network, given)
    run = RunFolder.create(tmp_path / "run", "")
    timing = StepTiming(network, make_examples(), given, None, optimizer, "float32", CPU)
    assert TimeLimit(3600.0).fitting_steps(run, timing, 6) == 6
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in network.parameters())
    assert TimeLimit(1e-9).fitting_steps(run, timing, 6) == 6  # as the journal has it


def test_a_limit_that_is_not_reached_changes_no_loss(make_network, make_examples, tmp_path):
    plain, limited = (RunFolder.create(tmp_path / name, "") for name in ("plain", "limited"))
    train(make_network(), make_examples(), settings(), plain, Hooks(quiet=True))
    outcome = train(make_network(), make_examples(), settings(max_time="1h"), limited, Hooks(quiet=True))
    assert outcome.reason == "finished"
    assert losses(limited) == losses(plain)


def test_the_steps_that_fit_are_planned(make_network, make_examples, tmp_path):
    run = RunFolder.create(tmp_path / "run", "")
    outcome = train(make_network(), make_examples(), settings(steps=10**6, max_time=0.5), run, Hooks(quiet=True))
    (length,) = run.events(EVENT)
    assert length["without_limit"] == 10**6
    assert 1 <= outcome.step <= length["steps"] < 10**6
    assert outcome.reason == ("finished" if outcome.step == length["steps"] else "time")
    assert run.events("session")[0]["steps"] == length["steps"]


def test_training_stops_when_the_time_is_over(make_network, make_examples, tmp_path, monkeypatch):
    monkeypatch.setattr(TimeLimit, "is_over", property(lambda limit: True))
    run = RunFolder.create(tmp_path / "run", "")
    evaluated = []
    hooks = Hooks(quiet=True, evaluate=lambda network, step: evaluated.append(step) or {"loss": 1.0})
    outcome = train(make_network(), make_examples(), settings(steps=50, max_time="1h"), run, hooks)
    assert (outcome.reason, outcome.step, evaluated) == ("time", 1, [1])
    assert outcome.best_step == 1
    assert run.events("session_end")[0]["reason"] == "time"
    again = train(make_network(), make_examples(), settings(steps=50, max_time="1h"), run, hooks)
    assert (again.reason, again.step) == ("time", 1)  # it is over in a resumed run too


def test_earlier_sessions_count(monkeypatch):
    monkeypatch.setattr("lmworks.train.time_limit.time.monotonic", Clock(1.0))
    limit = TimeLimit(10.0)
    assert not limit.is_over
    limit.earlier = 8.0
    assert limit.is_over
    assert not TimeLimit(None).is_over


def test_durations_as_people_write_them():
    assert [settings(max_time=text).max_time for text in ("90s", "10m", "1.5 h", 30, None)] == [90, 600, 5400, 30, None]
    with pytest.raises(InputError, match="no duration"):
        build(TrainSettings, {"max_time": "soon"}, "recipe.yaml")
