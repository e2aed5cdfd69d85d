"""A classification head needs an entry in the config and labels: losses, steps, runs and measurements serve it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_networks import make_network
from torch.nn import functional

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.data.batch import Example, Labels, count_labels
from lmworks.evaluate import scoring
from lmworks.model import initialization, sizes
from lmworks.model.config import HeadConfig, ModelConfig
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.settings import TrainSettings
from lmworks.train.step import accumulate_gradients, step_flops

CPU = torch.device("cpu")
ENCODER = {"architecture": "encoder", "positions": "learned", "norm": "layer", "norm_position": "post", "pooler": True}
CASES = {
    "pooled text of an encoder": ({**ENCODER}, HeadConfig(name="topic", kind="pooled", size=3)),
    "first token of an encoder": ({**ENCODER}, HeadConfig(name="topic", kind="first", size=3)),
    "last token of a decoder": ({}, HeadConfig(name="topic", kind="last", size=3)),
    "each token of a decoder": ({}, HeadConfig(name="topic", kind="tokens", size=3)),
    "pooled text without a language head": (
        {**ENCODER, "language_head": False},
        HeadConfig(name="topic", kind="pooled", size=3),
    ),
}


def settings(**changes) -> TrainSettings:
    values = {"batch_size": 8, "steps": 4, "learning_rate": 3e-3, "precision": "float32", "threads": 1}
    return TrainSettings(**(values | changes))


def labelled(head: HeadConfig, language: bool, count: int = 8) -> list[Example]:
    """Documents whose class (of each token, for such a head) is the remainder of a token's id by the head's size."""
    rng = np.random.default_rng(3)
    examples = []
    for length in rng.integers(3, 9, count):
        ids = rng.integers(1, 61, length).astype(np.int32)
        places = np.array(head.places(length), dtype=np.int64)
        labels = Labels.of_tokens(places, ids[places] % head.size)
        loss = (rng.random(length) < 0.4) & language
        examples.append(Example(ids, loss, targets=ids, labels={head.name: labels}))
    return examples


def case(name: str, language: bool):
    shape, head = CASES[name]
    network = make_network(heads=(head,), **shape)
    return network, head, labelled(head, language and network.config.language_head)


def plain_loss(network, head, examples) -> torch.Tensor:
    """Means over all tokens and over all labels, by PyTorch alone: document by document, all logits at once."""
    words, judged, targets, classes = [], [], [], []
    for example in examples:
        ids = torch.from_numpy(example.ids).long()
        states = network.hidden_states(ids[None])[0]
        words.append(states[torch.from_numpy(example.loss)])
        targets.append(ids[torch.from_numpy(example.loss)])
        read = {"first": states[:1], "last": states[-1:], "tokens": states}.get(head.kind)
        judged.append(torch.tanh(network.pooler(states[:1])) if read is None else read)
        classes.append(torch.from_numpy(example.labels[head.name].classes))
    linear = network.heads[head.name]
    loss = functional.cross_entropy(linear(torch.cat(judged)), torch.cat(classes))
    if sum(map(len, targets)):
        loss = loss + functional.cross_entropy(network.head(torch.cat(words)), torch.cat(targets))
    return loss


@pytest.mark.parametrize("language", [True, False], ids=["beside the language head", "alone"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_plain_pytorch(name, language):
    network, head, examples = case(name, language)
    expected = plain_loss(network.train(), head, examples)
    expected.backward()
    gradients = {key: weight.grad.clone() for key, weight in network.named_parameters() if weight.grad is not None}
    assert f"heads.{head.name}.weight" in gradients
    for changes in ({}, {"row_tokens": 12}, {"packing": False}):
        network.zero_grad()
        result = accumulate_gradients(network, examples, settings(**changes), 1, "float32", CPU)
        assert result.loss == pytest.approx(expected.item(), rel=1e-5)
        assert result.has_targets
        for key, weight in network.named_parameters():
            if key in gradients:
                torch.testing.assert_close(weight.grad, gradients[key], rtol=1e-4, atol=1e-6, msg=key)
            else:
                assert weight.grad is None, key


@pytest.mark.parametrize("name", CASES)
def test_a_head_learns_its_labels_and_is_measured(name, tmp_path):
    network, _head, examples = case(name, language=False)
    initialization.draw(network, torch.Generator().manual_seed(0))
    run = RunFolder.create(tmp_path / "run", "")

    def evaluate(network, step):
        return scoring.summary(scoring.row_losses(network, examples, row_tokens=20), [0] * len(examples))

    before = evaluate(network, 0)
    train(network, examples, settings(steps=120, learning_rate=1e-2), run, Hooks(evaluate=evaluate, quiet=True))
    after = evaluate(network, 1)
    assert before["topic_accuracy"] < after["topic_accuracy"] == 1.0
    assert after["loss"] == after["topic_loss"] < 0.2
    assert after["tokens"] == 0
    assert "perplexity" not in after
    last = run.events("step")[-1]
    assert last["topic_loss"] == last["loss"]


def test_measured_losses_are_those_of_each_document_alone():
    network, _, examples = case("last token of a decoder", language=True)
    examples.append(replace(examples[0], labels={}))
    losses = scoring.row_losses(network, examples)
    for row, example in enumerate(examples):
        alone = scoring.row_losses(network, [example])
        assert losses.language.nats[row] == pytest.approx(alone.language.nats[0], abs=1e-4)
        if example.labels:
            assert losses.heads["topic"].nats[row] == pytest.approx(alone.heads["topic"].nats[0], abs=1e-4)
    assert losses.heads["topic"].targets.tolist() == [1] * 8 + [0]
    logits = (
        network.hidden_states(torch.from_numpy(examples[2].ids).long()[None])[0, -1:] @ network.heads.topic.weight.T
    )
    expected = functional.cross_entropy(
        logits.detach() + network.heads.topic.bias.detach(), torch.tensor([int(examples[2].ids[-1]) % 3])
    )
    assert losses.heads["topic"].nats[2] == pytest.approx(float(expected), abs=1e-4)


def test_a_run_does_not_go_on_with_other_labels(tmp_path):
    network, head, examples = case("last token of a decoder", language=True)
    run = RunFolder.create(tmp_path / "run", "")
    train(network, examples, settings(checkpoint_every=2), run, Hooks(quiet=True))
    other = [replace(examples[0], labels={head.name: Labels.of_text(2, len(examples[0]) - 1)}), *examples[1:]]
    assert int(examples[0].labels[head.name].classes[0]) != 2
    with pytest.raises(InputError, match="other data"):
        train(network, other, settings(), run, Hooks(quiet=True))


@pytest.mark.parametrize("name", CASES)
def test_a_head_counts_in_flops_and_parameters(name):
    network, head, examples = case(name, language=True)
    result = accumulate_gradients(network, examples, settings(), 1, "float32", CPU)
    labels = count_labels(examples)
    assert result.workload.labels == labels
    assert sizes.parameters(network.config)["heads"] == sum(weight.numel() for weight in network.heads.parameters())
    bare = replace(result.workload, labels=type(labels)())
    beside = step_flops(network, result.workload) - step_flops(network, bare)
    pooled = 32 if head.kind == "pooled" else 0
    assert beside == 3 * 2 * labels["topic"] * 32 * (pooled + 3)


def test_heads_that_cannot_be_are_refused():
    sizes_of = {"vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    sizes_of |= {"num_attention_heads": 1, "max_position_embeddings": 8}
    topic = {"name": "topic", "kind": "last", "size": 2}
    for heads, fault in (
        ([{**topic, "kind": "pooled"}], "set pooler"),
        ([topic, topic], "a name of its own"),
        ([{**topic, "name": "language"}], "a name of its own"),
        ([{**topic, "name": "a.b"}], "name"),
        ([{**topic, "size": 0}], "size"),
    ):
        with pytest.raises(ValueError, match=fault):
            ModelConfig(**sizes_of, heads=heads)
    network = make_network(heads=(HeadConfig(**topic),))
    with pytest.raises(ValueError, match="no head 'other'"):
        network.head_logits("other", torch.zeros(1, 32))
    with pytest.raises(ValueError, match="cannot be the name of a head"):
        make_network(heads=(HeadConfig(name="keys", kind="last", size=2),))
