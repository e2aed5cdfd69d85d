"""One loss, one loop and one measurement for all tasks: equal however rows are laid, killed or repeated."""

import math
import os
import signal

import numpy as np
import pytest
import torch
from each_step import after_each_step
from torch.nn import functional
from training_tasks import KINDS, task

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.evaluate import scoring
from lmworks.train import losses
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.settings import TrainSettings
from lmworks.train.step import accumulate_gradients, batches_of, sample

CPU = torch.device("cpu")


def settings(**changes) -> TrainSettings:
    values = {"batch_size": 4, "steps": 8, "learning_rate": 3e-3, "precision": "float32", "threads": 1}
    return TrainSettings(**(values | changes))


def one_by_one(network, examples) -> tuple[torch.Tensor, int, torch.Tensor, int]:
    """Sum of -log p of all targets, their number, the same of pairs: each document alone, logits whole."""
    words = pairs = torch.zeros(())
    count = asked = 0
    for example in examples:
        ids = torch.from_numpy(example.ids).long()[None]
        messages = {} if example.types is None else {"types": torch.from_numpy(example.types).long()[None]}
        if example.source is not None:
            messages["memory"] = network.encode(torch.from_numpy(example.source).long()[None])
        output = network(ids, **messages)
        logits, loss = output.logits[0], torch.from_numpy(example.loss)
        if example.targets is None:
            logits, targets, loss = logits[:-1], ids[0, 1:], loss[1:]
        else:
            targets = torch.from_numpy(example.targets).long()
        words = words + functional.cross_entropy(logits[loss], targets[loss], reduction="sum")
        count += int(loss.sum())
        for head, labels in example.labels.items():
            judged = network.head_logits(head, output.hidden[0, labels.places])
            pairs = pairs + functional.cross_entropy(judged, torch.from_numpy(labels.classes))
            asked += 1
    return words, count, pairs, asked


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_definition_however_rows_are_laid(kind):
    created = task(kind)
    network = created.make().train()
    examples = sample(created.examples, range(6 if kind != "seq2seq" else 4), created.transform, 0, 1)
    words, count, pairs, asked = one_by_one(network, examples)
    expected = words / count + (pairs / asked if asked else 0)
    expected.backward()
    gradients = {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}
    assert asked == (len(examples) if kind == "pairs" else 0)
    for how in (settings(row_tokens=4096), settings(row_tokens=60), settings(row_tokens=1), settings(packing=False)):
        network.zero_grad()
        result = accumulate_gradients(network, examples, how, 1, "float32", CPU)
        assert result.targets == count
        assert result.loss == pytest.approx(expected.item(), rel=1e-5)
        assert list(result.terms) == ["language", *(["next_sentence"] if asked else [])]
        for name, weight in network.named_parameters():
            if name not in gradients:
                assert weight.grad is None
                continue
            torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-3, atol=1e-5, msg=name)


def test_documents_of_one_length_stand_a_document_a_row():
    examples = task("masked").examples
    longest = max(len(example) for example in examples)
    same = [example for example in examples if len(example) == longest][:4]
    assert len(same) == 4
    assert [tuple(batch.ids.shape) for batch in batches_of(same, settings(row_tokens=2 * longest + 1))] == [
        (2, longest)
    ] * 2
    other = next(example for example in examples if len(example) < longest)
    assert all(len(batch.ids) == 1 for batch in batches_of([*same, other], settings()))


@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize("kind", ["masked", "spans"])
def test_gradients_of_bias_and_cap_are_those_of_autograd(kind, cap, monkeypatch):
    monkeypatch.setattr(losses, "trained_logits", lambda *_: 3)
    created = task(kind)
    network = created.make(head_bias=True, logit_softcap=cap, initializer_range=0.5)
    torch.nn.init.normal_(network.head_bias)
    hidden = torch.randn(11, 32, requires_grad=True)
    targets, weights = torch.randint(0, network.config.vocab_size, (11,)), torch.rand(11)
    (functional.cross_entropy(network.head(hidden), targets, reduction="none") * weights).sum().mul(0.7).backward()
    expected = [hidden.grad, *(network.get_parameter(n).grad for n in ("head_bias", "embed_tokens.weight"))]
    hidden.grad = None
    network.zero_grad()
    losses.language_loss(network, hidden, targets, weights).mul(0.7).backward()
    result = [hidden.grad, *(network.get_parameter(n).grad for n in ("head_bias", "embed_tokens.weight"))]
    for single, other in zip(result, expected, strict=True):
        torch.testing.assert_close(single, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["masked", "pairs", "spans"])
def test_stopped_and_resumed_is_never_stopped(kind, tmp_path):
    created = task(kind)
    shape = {"hidden_dropout": 0.1, "attention_dropout": 0.1}

    def go(folder, hooks, **changes):
        run = RunFolder(folder) if folder.exists() else RunFolder.create(folder, "")
        network = created.make(**shape)
        outcome = train(network, created.examples, settings(**changes), run, hooks, transform=created.transform)
        return network, run, outcome

    def stop(line):
        if line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    whole, messages, _ = go(tmp_path / "whole", Hooks(quiet=True))
    with after_each_step(stop):
        _, _, outcome = go(tmp_path / "stopped", Hooks(quiet=True))
    assert outcome.reason == "interrupted"
    resumed, again, _ = go(tmp_path / "stopped", Hooks(quiet=True))
    names = ("step", "loss", "gradient_norm", "targets", *(["next_sentence_loss"] if kind == "pairs" else []))
    lines = [[[event[name] for name in names] for event in run.events("step")] for run in (messages, again)]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 8
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_each_pass_over_the_data_hides_other_words():
    created = task("masked")
    (first,), (second,), (again,) = (sample(created.examples, [0], created.transform, 0, step) for step in (1, 2, 1))
    assert not np.array_equal(first.loss, second.loss) or not np.array_equal(first.ids, second.ids)
    assert np.array_equal(first.loss, again.loss)
    assert np.array_equal(first.ids, again.ids)
    assert not np.array_equal(first.ids, sample(created.examples, [0], created.transform, 1, 1)[0].ids)
    single, other = sample(created.examples, [0, 0], created.transform, 0, 1)
    assert np.array_equal(single.ids, first.ids)
    assert not np.array_equal(single.ids, other.ids)


def test_a_run_does_not_go_on_with_another_task(tmp_path):
    run = RunFolder.create(tmp_path / "run", "")
    first, second = task("masked"), task("masked", mask_rate=0.2)
    train(
        first.make(),
        first.examples,
        settings(steps=4, checkpoint_every=2),
        run,
        Hooks(quiet=True),
        transform=first.transform,
    )
    with pytest.raises(InputError, match="other task"):
        train(first.make(), first.examples, settings(steps=4), run, Hooks(quiet=True), transform=second.transform)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row_tokens", [1, 70, 10_000])
def test_a_measurement_is_the_definition_and_counts_what_is_right(kind, row_tokens):
    created = task(kind)
    network = created.make(initializer_range=0.5, hidden_dropout=0.2).train()
    result = scoring.row_losses(network, created.evaluated, row_tokens)
    assert network.training
    network.eval()
    right = 0
    for row, example in enumerate(created.evaluated):
        with torch.no_grad():
            words, count, pairs, asked = one_by_one(network, [example])
        assert result.language.targets[row] == count
        assert result.language.nats[row] == pytest.approx(float(words), abs=1e-3)
        if asked:
            assert result.heads["next_sentence"].nats[row] == pytest.approx(float(pairs), abs=1e-4)
        right += result.language.correct[row]
    assert list(result.heads) == (["next_sentence"] if kind == "pairs" else [])
    remaining = scoring.summary(result, [0] * len(created.evaluated))
    assert "bits_per_byte" not in remaining
    assert remaining["perplexity"] == pytest.approx(math.exp(remaining["loss"]))
    assert remaining["accuracy"] == pytest.approx(right / result.language.targets.sum())
    assert ("next_sentence_accuracy" in remaining) == (kind == "pairs")


def test_a_network_that_has_learned_by_heart_is_right(tmp_path):
    created = task("seq2seq")
    network = created.make()
    run = RunFolder.create(tmp_path / "run", "")
    train(
        network,
        created.examples,
        settings(steps=150, learning_rate=1e-2),
        run,
        Hooks(quiet=True),
        transform=created.transform,
    )
    remaining = scoring.summary(
        scoring.row_losses(network, created.examples), [single.bytes for single in created.examples]
    )
    assert remaining["accuracy"] == 1.0
    assert 1 < remaining["perplexity"] < 2
    nats, size = remaining["loss"] * remaining["tokens"], sum(single.bytes for single in created.examples)
    assert remaining["bits_per_byte"] == pytest.approx(nats / math.log(2) / size)
