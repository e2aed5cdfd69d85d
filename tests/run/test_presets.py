"""Presets: each can be written out, changed, and said in its family's names, with as many parameters as theirs."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from lmworks.adapt import registry as methods
from lmworks.base.errors import InputError
from lmworks.base.notation import read_yaml
from lmworks.base.settings import to_yaml
from lmworks.commands.main import main
from lmworks.families.registry import FAMILIES, OWN
from lmworks.model import sizes
from lmworks.model.transformer import Transformer
from lmworks.run import presets
from lmworks.run import recipe as recipes
from lmworks.tasks import registry as tasks
from lmworks.tasks.registry import TASKS

NAMES = presets.names()
WORDS = 300  # of a tokenizer that is trained on whatever text
SPECIALS = {"marian": {"pad_token_id": 2, "eos_token_id": 0, "decoder_start_token_id": 2}}
# Published counts: papers, and the models' cards; ours are with the heads that the tasks need.
PUBLISHED = {
    "gpt2": 124_439_808,
    "llama-15m": 15_191_712,
    "bert-base": 110_106_428,
    "roberta-base": 124_697_433,
    "t5-small": 60_506_624,
    "bart-base": 139_420_416,
}


def created(name: str, **changes):
    return recipes.from_preset(name, {"data": "-", **changes})


def config_of(recipe):
    return recipe.model.config(recipe.tokenizer.vocab_size or WORDS)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_said_in_the_names_of_its_family(name):
    recipe = created(name)
    config, family = config_of(recipe), FAMILIES[recipe.family]
    output = family.write_config(config)
    again = family.read_config(output, tensors={row.theirs for row in family.rows(config)})
    for field, value in again:
        if field not in ("initialization", "num_key_value_heads", "head_dim"):
            assert value == getattr(config, field), field


@pytest.mark.parametrize("name", NAMES)
def test_transformers_count_as_many_parameters(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    recipe = created(name)
    config = config_of(recipe)
    if FAMILIES[recipe.family] in OWN:
        with torch.device("meta"):
            assert sizes.parameters(config)["total"] == sum(w.numel() for w in Transformer(config).parameters())
        return
    output = FAMILIES[recipe.family].write_config(config, SPECIALS.get(recipe.family))
    kind = getattr(transformers, output["architectures"][0])
    with torch.device("meta"):
        theirs = kind(transformers.AutoConfig.for_model(**output))
    computed = "embed_positions" if recipe.family == "marian" else "nothing"  # sinusoids, not learned
    counted = sum(weight.numel() for name, weight in theirs.named_parameters() if computed not in name)
    if recipe.family == "t5" and not config.tie_word_embeddings:
        counted += config.vocab_size * config.hidden_size  # theirs has a head of its own only where the file holds one
    if recipe.family == "bert" and not config.tie_word_embeddings:
        counted -= config.vocab_size  # theirs then has a second bias of the head, which nothing reads
    assert sizes.parameters(config)["total"] == counted


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_size_is_the_published_one(name):
    assert sizes.parameters(config_of(created(name)))["total"] == PUBLISHED[name]


@pytest.mark.parametrize("name", NAMES)
def test_written_out_and_read_again_it_is_the_same(name, tmp_path):
    recipe = created(name)
    path = tmp_path / "my.yaml"
    path.write_text(to_yaml(recipe))
    assert recipes.read(path) == recipe
    assert recipes.read(path).is_new
    if recipe.task.name != "auto":
        assert recipe.model.architecture in TASKS[recipe.task.name].architectures


def test_everything_can_be_changed(tmp_path):
    recipe = created("tinygpt", model={"num_hidden_layers": 2}, train={"steps": 7}, tokenizer="some/folder")
    assert (recipe.model.num_hidden_layers, recipe.model.hidden_size) == (2, 128)
    assert (recipe.train.steps, recipe.train.batch_size) == (7, 32)
    assert recipe.tokenizer.source == "some/folder"
    path = tmp_path / "my.yaml"
    path.write_text(to_yaml(recipe))
    assert recipes.read(path, {"data": "x.txt", "train": {"steps": 9}}).train.steps == 9


def test_embeddings_follow_the_hidden_size():
    config = config_of(created("transformer-tiny", model={"hidden_size": 64}))
    assert config.embedding_scale == 8
    config = config_of(created("t5-small", model={"hidden_size": 64, "num_attention_heads": 1}))
    assert config.head_scale == 1 / 8


def test_the_vocabulary_follows_the_tokenizer():
    model = created("tinygpt", model={"vocab_multiple": 64}).model
    assert model.config(65).vocab_size == 128
    assert created("t5-small").model.config(32_100).vocab_size == 32_128  # as published
    assert created("tinygpt", model={"vocab_size": 100}).model.config(65).vocab_size == 100
    with pytest.raises(InputError, match=r"65 ids"):
        created("tinygpt", model={"vocab_size": 64}).model.config(65)


class TestErrors:
    def test_an_unknown_preset_names_the_nearest(self):
        with pytest.raises(InputError, match="tinybert"):
            created("tinybret")

    def test_heads_must_divide_the_hidden_size(self):
        with pytest.raises(InputError, match="num_attention_heads 5 does not divide hidden_size 128"):
            created("tinygpt", model={"num_attention_heads": 5})

    def test_an_unknown_setting_names_the_nearest(self):
        with pytest.raises(InputError, match=r"model\.num_hidden_layers"):
            created("tinygpt", model={"num_hidden_layer": 2})


def test_hyphens_and_underscores_are_the_same_in_names_of_methods_tasks_and_presets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipes.resolve({"model": "x", "data": "y", "method": "last-layers"}).method == "last_layers"
    assert methods.make("last-layers").name == "last_layers"
    assert presets.preset("transformer_tiny").name == "transformer-tiny"
    assert recipes.is_preset("transformer_tiny")
    monkeypatch.setitem(tasks.TASKS, "next_word", tasks.TASKS["causal"])
    recipe = recipes.resolve({"model": "x", "data": "y", "task": "next-word"})
    assert recipe.task.name == "next_word"
    merged = recipes.merge_values({"task": {"name": "next_word", "windows": "random"}}, {"task": "next-word"})
    assert merged["task"] == {"name": "next_word", "windows": "random"}
    assert tasks.task_class("next-word") is tasks.TASKS["causal"]
    assert main(["tune", "x", "y", "--method", "last-layers", "--last-layers.layers", "3", "--dry-run"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["method"], printed["last_layers"]["layers"]) == ("last_layers", 3)
    file = tmp_path / "recipe.yaml"
    file.write_text("model: x\ndata: y\nmethod: last-layers\n")
    assert recipes.read(file).method == "last_layers"
    with pytest.raises(InputError, match="no method"):
        methods.make("last-layer")


def test_what_was_typed_is_not_said_of_the_preset():
    with pytest.raises(InputError, match="valid integer") as caught:
        created("tinygpt", train={"steps": "x"})
    assert caught.value.place == "the command line"


def test_what_was_typed_is_not_said_of_the_recipe_file(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(to_yaml(created("tinygpt")))
    for typed in ({"train": {"steps": "x"}}, {"train": {"steps": 3, "epochs": 2}}, {"data": {"held": 2}}):
        with pytest.raises(InputError) as caught:
            recipes.read(path, typed)
        assert caught.value.place == "the command line"
    with pytest.raises(InputError) as caught:
        recipes.read(path, {"model": {"num_attention_heads": 5}})
    assert caught.value.place == f"{path} with the command line"


@pytest.mark.parametrize("name", ["task", "train", "tokenizer"])
@pytest.mark.parametrize("value", [None, 3, ["masked"]])
def test_a_group_that_is_none_is_an_input_error_or_left_open(name, value, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(to_yaml(created("tinygpt")))
    is_open = (name, value) == ("tokenizer", None)
    for change in (lambda values: created("tinygpt", **values), lambda values: recipes.read(path, values)):
        with nullcontext() if is_open else pytest.raises(InputError, match=name):
            assert change({name: value}).is_new
    path.write_text(f"{name}:\n")
    with pytest.raises(InputError):
        recipes.read(path, {"task": "masked", "train": {"steps": 2}})


def test_a_model_that_is_null_is_named_by_its_setting():
    with pytest.raises(InputError, match=r"^here: model: is a group of settings, and not None\n.*give model a value"):
        recipes.resolve({"model": None, "data": "-"}, "here")


def test_tune_says_what_base_is_for():
    with pytest.raises(InputError, match="lmworks save ADAPTER FOLDER"):
        recipes.resolve({"model": "m", "data": "-", "base": "b"})


def test_no_torch_is_imported():
    code = (
        "import sys, lmworks.run.recipe, lmworks.run.presets;"
        "import lmworks.commands.pretrain, lmworks.commands.recipes;"
        "lmworks.run.recipe.from_preset('tinygpt', {'data': '-'}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_number_of_a_file_is_a_text():
    path = presets.__file__.replace(".py", ".yaml")
    for name, values in read_yaml(path).items():
        for setting, value in {**values["model"], **values["train"]}.items():
            assert not isinstance(value, str) or not value[:1].isdigit(), (name, setting)
