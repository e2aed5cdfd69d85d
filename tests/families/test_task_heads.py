"""Models with a head for a task give the logits and losses of ``transformers``, whoever wrote the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_families import ALBERT, BART, DISTILBERT, GEMMA, GPT2, MISTRAL, QWEN3, SIZES, T5

from lmworks.base.errors import InputError
from lmworks.data.batch import Example, Labels
from lmworks.data.packing import collate
from lmworks.families.folder import open_folder, read_config, save_folder
from lmworks.families.opened import Opened
from lmworks.families.registry import FAMILIES, OWN
from lmworks.model.forward import hidden_states
from lmworks.model.initialization import replace_heads
from lmworks.model.task_heads import SEQUENCE, SPANS, TOKENS, HeadRequest
from lmworks.train.losses import terms

TINY: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "mistral": SIZES | MISTRAL,
    "qwen2": SIZES | MISTRAL,
    "qwen3": SIZES | QWEN3,
    "gemma2": SIZES | GEMMA,
    "gemma3_text": SIZES | GEMMA,
    "distilbert": DISTILBERT,
    "albert": SIZES | ALBERT,
    "bart": BART,
    "t5": T5,
}
CASES = [(name, head) for name, family in FAMILIES.items() if family not in OWN for head in family.heads]
every_head = pytest.mark.parametrize(("family", "head"), CASES, ids=[f"{family}-{head}" for family, head in CASES])
LENGTHS = (9, 12)
SIZE = 3


def make(family: str, head: str, **changes: Any) -> Any:
    """A tiny random model of the class, in float32."""
    torch.manual_seed(5)
    kind = getattr(transformers, FAMILIES[family].heads[head].architecture)
    known = {"vocab_size": 101, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "num_labels": SIZE}
    config = kind.config_class(**(known | TINY.get(family, SIZES) | changes))
    config.architectures = [kind.__name__]
    if head == SPANS:
        config.num_labels = 2
    model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.1)
    return model.float().eval()


def texts() -> list[np.ndarray]:
    """Ids that end with EOS, none other special."""
    rng = np.random.default_rng(3)
    return [np.append(rng.integers(3, 101, length - 1), 2).astype(np.int32) for length in LENGTHS]


def example(ids: np.ndarray, ours: Opened, labels: dict[str, Labels]) -> Example:
    """A text as our tasks put it to a model of this architecture."""
    source = None
    if ours.config.architecture == "encoder-decoder":
        start = ours.generation.get("decoder_start_token_id", 0)
        source, ids = ids, np.append([start], ids[:-1]).astype(np.int32)
    return Example(ids, np.zeros(len(ids), bool), targets=np.zeros(len(ids), np.int32), source=source, labels=labels)


def labels_of(head: str, ids: np.ndarray, ours: Opened, number: int) -> Labels:
    """Labels of a text; of single-label, token or span heads."""
    if head == SEQUENCE:
        return Labels.of_text(number % SIZE, ours.config.heads[0].places(len(ids))[0])
    places = np.arange(len(ids))
    return Labels.of_tokens(places, ids % SIZE) if head == TOKENS else Labels.of_span(places, 1 + number, 3)


def theirs(model: Any, head: str, ids: np.ndarray, number: int) -> Any:
    """Their output for one text, with its loss."""
    known = {"input_ids": torch.from_numpy(ids.astype(np.int64))[None]}
    if head == SEQUENCE:
        return model(**known, labels=torch.tensor([number % SIZE]))
    if head == TOKENS:
        return model(**known, labels=torch.from_numpy((ids % SIZE).astype(np.int64))[None])
    return model(**known, start_positions=torch.tensor([1 + number]), end_positions=torch.tensor([3]))


def logits(ours: Opened, head: str, ids: np.ndarray) -> torch.Tensor:
    """Our (N, C) logits of one text."""
    batch = collate([example(ids, ours, {head: labels_of(head, ids, ours, 0)})])
    hidden = hidden_states(ours.network, batch).flatten(0, 1)
    return ours.network.head_logits(head, hidden[batch.labels[head].places])


def their_logits(output: Any, head: str) -> torch.Tensor:
    """Theirs in our shape."""
    if head == SPANS:
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=1)
    return output.logits if head == SEQUENCE else output.logits[0]


@every_head
@torch.no_grad()
def test_logits_and_losses_are_theirs_and_our_folder_opens_there(family: str, head: str, tmp_path: Path) -> None:
    model = make(family, head)
    model.save_pretrained(tmp_path / "theirs")
    ours = open_folder(tmp_path / "theirs")
    assert read_config(tmp_path / "theirs") == ours.config
    examples, losses = [], []
    for number, ids in enumerate(texts()):
        output = theirs(model, head, ids, number)
        torch.testing.assert_close(logits(ours, head, ids), their_logits(output, head), rtol=0, atol=1e-4)
        labels = labels_of(head, ids, ours, number)
        examples.append(example(ids, ours, {head: labels}))
        losses.append(float(output.loss) * labels.weight)
    term = terms(ours.network, collate(examples))[head]
    assert float(term.total) == pytest.approx(sum(losses), abs=1e-4)
    path = save_folder(
        tmp_path / "ours", ours.network, ours.config, ours.family, hf_config=ours.hf_config, generation=ours.generation
    )
    assert json.loads((path / "config.json").read_text())["architectures"] == model.config.architectures
    there, info = type(model).from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for ids in texts():
        received = their_logits(theirs(there.eval(), head, ids, 0), head)
        torch.testing.assert_close(received, their_logits(theirs(model, head, ids, 0), head), rtol=0, atol=1e-4)
    assert open_folder(path).config == ours.config


@every_head
@torch.no_grad()
def test_a_new_head_on_a_backbone_is_written_as_the_class(family: str, head: str, tmp_path: Path) -> None:
    model = make(family, SEQUENCE)
    model.save_pretrained(tmp_path / "theirs")
    ours = open_folder(tmp_path / "theirs")
    names = ("red", "green", "blue", "grey") if head != SPANS else ()
    problem = "span" if head == SPANS else "single_label"
    config = ours.family.with_head(ours.config, HeadRequest(head, len(names) or 2, problem, names))
    replace_heads(ours.network, config, torch.Generator().manual_seed(1))
    path = save_folder(tmp_path / "ours", ours.network, config, ours.family, hf_config=ours.hf_config)
    kind = getattr(transformers, ours.family.heads[head].architecture)
    there, info = kind.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    for ids in texts():
        ours_now = Opened(config, ours.network, None, {}, ours.family, ours.generation, [], None)
        received = their_logits(theirs(there.eval(), head, ids, 0), head)
        torch.testing.assert_close(logits(ours_now, head, ids), received, rtol=0, atol=1e-4)
    if names:
        assert there.config.id2label == dict(enumerate(names))


@pytest.mark.parametrize(
    ("problem", "size", "labels"),
    [("regression", 1, [0.7]), ("regression", 2, [0.7, -1.5]), ("multi_label_classification", 3, [1.0, 0.0, 1.0])],
)
def test_values_and_several_labels_cost_what_theirs_cost(
    problem: str, size: int, labels: list[float], tmp_path: Path
) -> None:
    model = make("bert", SEQUENCE, num_labels=size, problem_type=problem)
    model.save_pretrained(tmp_path)
    ours = open_folder(tmp_path)
    ids = texts()[0]
    output = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None], labels=torch.tensor([labels]))
    batch = collate([example(ids, ours, {SEQUENCE: Labels.of_text(np.array(labels))})])
    term = terms(ours.network, batch)[SEQUENCE]
    assert float(term.total.detach()) == pytest.approx(float(output.loss.detach()), abs=1e-5)
    gradients = torch.autograd.grad(term.total, ours.network.heads[SEQUENCE].weight)
    expected = torch.autograd.grad(output.loss, model.classifier.weight)
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"id2label": ["a", "b", "c"]}, "id2label is no table"),
        ({"id2label": {"0": "a", "2": "b", "3": "c"}}, "does not number its labels"),
        ({"problem_type": "guess"}, "problem_type is 'guess'"),
        ({"classifier_dropout": "much"}, "no rate"),
        ({"id2label": {"0": "a", "1": "b"}}, "shape"),
    ],
)
def test_a_damaged_head_names_the_key(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    make("bert", SEQUENCE).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    with pytest.raises(InputError, match=said):
        open_folder(tmp_path)
