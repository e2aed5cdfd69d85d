"""The page on adding a task is true: its code is registered, trains, and reports."""

import re
from pathlib import Path

import numpy as np
import pytest
from tiny_presets import save_text, small
from tiny_tasks import model
from tiny_tokenizers import byte_level
from tokenizers import AddedToken

import lmworks
from lmworks.base.settings import merge
from lmworks.commands.main import main
from lmworks.data.documents import Document, Window
from lmworks.tasks import registry
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.task import Task
from lmworks.text.tokenizer import Tokenizer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding_a_task.md"


@pytest.fixture(name="task")
def _task(monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    module: dict = {"__name__": "fill_middle"}
    exec(compile(code, str(PAGE), "exec"), module)
    monkeypatch.setitem(registry.TASKS, "fill_middle", module["FillMiddle"])
    return module["FillMiddle"]


@pytest.fixture(name="tokenizer")
def _tokenizer(tmp_path):
    tokenizer = byte_level()
    marks = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
    tokenizer.core.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    tokenizer.save(tmp_path / "tokenizer")
    return Tokenizer.open(tmp_path / "tokenizer")


def test_an_example_is_prefix_suffix_middle(task, tokenizer):
    created = task(TaskSettings(name="fill_middle"), tokenizer, model("decoder"))
    ids = np.array(tokenizer.encode("The cat sees the moon."), dtype=np.int32)
    window = Window(Document(ids, np.zeros(len(ids), np.int32), "", "row 1"), 0, len(ids))
    for seed in range(20):
        text = tokenizer.decode(
            created._rearrange(window, np.random.default_rng(seed)).ids.tolist(), skip_special=False
        )
        prefix, suffix, middle = re.fullmatch(r"<fim_prefix>(.*)<fim_suffix>(.*)<fim_middle>(.*)</s>", text).groups()
        assert prefix + middle + suffix == "The cat sees the moon."


def test_it_trains_and_reports(task, tokenizer, tmp_path, capsys):
    text = save_text(tmp_path / "text.txt")
    data = {"source": str(text), "document": "paragraph", "held_out": 4}
    values = merge(
        small("llama-1m"), {"train": {"steps": 30, "evaluate_every": 30}, "model": {"max_position_embeddings": 64}}
    )
    values["tokenizer"] = {"source": str(tmp_path / "tokenizer")}
    run = lmworks.pretrain("llama-1m", data, task="fill_middle", out=tmp_path / "run", **values)
    measures = {measure["key"]: measure for measure in run.card["measures"]}
    assert list(measures) == ["held_out_loss", "held_out_perplexity", "held_out_accuracy"]
    assert measures["held_out_loss"]["change"]["value"] < 0
    assert "the middle of texts from what surrounds it" in (run.folder / "report.html").read_text()
    assert main(["data", "show", str(run.folder), str(text), "--task", "fill_middle", "--draws", "2"]) == 0
    assert "draw 2" in capsys.readouterr().out


def test_the_table_has_everything_that_a_task_may_say():
    table = PAGE.read_text(encoding="utf-8").partition("\n| | |\n")[2].partition("\n\n")[0]
    said = set(re.findall(r"`(\w+)`", table))
    names = {name for name in {*vars(Task), *Task.__annotations__} if not name.startswith("_")}
    assert names - {"sample", "sample_for_evaluation", "mask_rate"} <= said  # these three call what the table names
