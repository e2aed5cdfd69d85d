"""Which task suits rows and a model, what is refused, and that each hint works when obeyed."""

import re
import subprocess
import sys

import pytest
from tiny_tasks import bert_like, model, roberta_like, t5_like

from lmworks.base.errors import InputError
from lmworks.tasks import registry
from lmworks.tasks.settings import TaskSettings

KINDS = ("text", "labels", "completion", "pairs", "chat")
SUITED = {
    ("decoder", "text"): "causal",
    ("decoder", "labels"): "classify",
    ("decoder", "completion"): "instructions",
    ("decoder", "pairs"): "instructions",
    ("decoder", "chat"): "chat",
    ("encoder", "text"): "masked",
    ("encoder", "labels"): "classify",
    ("encoder-decoder", "text"): "spans",
    ("encoder-decoder", "labels"): "classify",
    ("encoder-decoder", "completion"): "seq2seq",
    ("encoder-decoder", "pairs"): "seq2seq",
}


def choose(kind, config, tokenizer=None, **settings):
    return registry.choose(TaskSettings(**settings), kind, config, tokenizer or t5_like, "rows.jsonl")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["decoder", "encoder", "encoder-decoder"])
def test_the_task_that_suits_or_what_would_work(architecture, kind):
    suited = SUITED.get((architecture, kind))
    if suited is not None:
        assert choose(kind, model(architecture)).name == suited
        return
    with pytest.raises(InputError, match=f"an? {architecture} does not learn") as refusal:
        choose(kind, model(architecture))
    named = re.findall(r"--task (\w+)", refusal.value.hint)
    others = re.search(r"or take (.*) for these rows", refusal.value.hint)
    assert named or others
    for name in named:
        assert choose(kind, model(architecture), name=name).name == name
    for other in re.findall(r"an? ([\w-]+)", others[1]) if others else []:
        assert other in choose(kind, model(other)).architectures


def test_texts_of_an_encoder_decoder_are_damaged_as_its_tokenizer_allows():
    assert choose("text", model("encoder-decoder"), t5_like).name == "spans"
    assert choose("text", model("encoder-decoder"), roberta_like).name == "denoising"
    assert choose("text", model("encoder-decoder"), lambda: None).name == "spans"


def test_a_decoder_with_a_chat_template_writes_its_labels():
    tokenizer = t5_like()
    assert choose("labels", model("decoder"), lambda: tokenizer).name == "classify"
    tokenizer.chat_template = "{{ messages }}"
    assert choose("labels", model("decoder"), lambda: tokenizer).name == "labels"
    assert choose("labels", model("encoder"), lambda: tokenizer).name == "classify"


@pytest.mark.parametrize("name", registry.TASKS)
def test_a_task_takes_its_rows_and_its_models_alone(name):
    task = registry.TASKS[name]
    for architecture in ("decoder", "encoder", "encoder-decoder"):
        for kind in KINDS:
            if architecture in task.architectures and kind in task.kinds:
                assert choose(kind, model(architecture), bert_like, name=name) is task
            else:
                with pytest.raises(InputError) as refusal:
                    choose(kind, model(architecture), bert_like, name=name)
                assert refusal.value.hint


def test_settings_of_another_task_are_refused_and_that_task_is_named():
    with pytest.raises(InputError, match="task spans does not use it") as refusal:
        choose("text", model("encoder-decoder"), name="spans", whole_words=True)
    assert refusal.value.place == "task.whole_words"
    assert "masked" in refusal.value.hint
    with pytest.raises(InputError, match="task causal does not use it"):
        choose("text", model("decoder"), mask_rate=0.3)


def test_a_mistyped_task_is_named():
    with pytest.raises(InputError, match="no task 'maskd'") as refusal:
        choose("text", model("encoder"), name="maskd")
    assert "did you mean masked?" in refusal.value.hint


def test_a_model_without_a_language_head_classifies_alone():
    with pytest.raises(InputError, match="trains a language head, and this model has none") as refusal:
        choose("text", model("encoder", language_head=False))
    assert "label" in refusal.value.hint
    assert choose("labels", model("encoder", language_head=False)).name == "classify"


def test_no_torch_is_imported():
    code = "import sys, lmworks.tasks.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
