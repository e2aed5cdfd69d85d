"""Models with a head for a task give the logits and losses of ``transformers``, whoever wrote the folder."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_families import CASES as FAMILY_CASES
from tiny_heads import CASES, example, labels_of, logits, make, texts, their_logits, theirs

from lmworks.base.errors import InputError
from lmworks.data.batch import Labels
from lmworks.data.packing import collate
from lmworks.families.folder import open_folder, read_config, save_folder
from lmworks.families.opened import Opened
from lmworks.families.registry import FAMILIES, OWN
from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS, HeadRequest
from lmworks.model.initialization import replace_heads
from lmworks.train.losses import terms

every_head = pytest.mark.parametrize(("family", "head"), CASES, ids=[f"{family}-{head}" for family, head in CASES])


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
        ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "two labels 'a'"),
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


@torch.no_grad()
def test_an_encoder_alone_is_taken_from_a_whole_model_and_never_made_whole_again(tmp_path: Path) -> None:
    model = make("t5", SPANS)
    model.save_pretrained(tmp_path / "theirs")
    ours = open_folder(tmp_path / "theirs")
    expected = ours.network.encode(ids := torch.tensor([[7, 8, 9]]))
    request = HeadRequest(TOKENS, 2, "single_label")
    config = ours.family.with_head(ours.config, request)
    assert (config.architecture, config.num_decoder_layers) == ("encoder", None)
    replace_heads(ours.network, config, torch.Generator())
    torch.testing.assert_close(ours.network.hidden_states(ids), expected, rtol=0, atol=0)
    assert not any("cross_attn" in name for name in ours.network.state_dict())
    with pytest.raises(InputError, match="has a decoder, and this model is an encoder alone"):
        ours.family.with_head(config, HeadRequest(SEQUENCE, 2, "single_label"))


def test_every_class_of_our_families_is_read_or_named_as_one_that_is_not() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    page = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    compared = {case.architecture for case in FAMILY_CASES.values()}
    for name, family in FAMILIES.items():
        if family in OWN:
            continue
        kind = CONFIG_MAPPING[name]
        module = importlib.import_module(kind.__module__.replace(".configuration_", ".modeling_"))
        classes = [
            other
            for other, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, transformers.PreTrainedModel) and value.config_class is kind
        ]
        read = compared | {layout.architecture for layout in family.heads.values()}
        for other in classes:
            if "For" in other or "Heads" in other or "LMHead" in other:
                assert other in read or f"`{other}`" in page, other
