"""lmworks data: what it prints."""

import argparse
import json

import pytest
from tiny_tokenizers import CHATML, byte_level

from lmworks.base.errors import InputError
from lmworks.commands import data


@pytest.fixture
def model(tmp_path):
    """A folder that has a tokenizer, and no weights."""
    folder = tmp_path / "model"
    byte_level(CHATML).save(folder)
    sizes = {"vocab_size": 300, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = {"model_type": "llama", "num_attention_heads": 1, "max_position_embeddings": 64, **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run(*words):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    data.add_arguments(parser)
    args, rest = parser.parse_known_args([str(word) for word in words])
    return data.run(args, rest)


def test_show_marks_what_carries_loss(model, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"prompt": "Who?", "completion": "I"}\n{"prompt": "The", "completion": "sky"}\n')
    assert run("show", model, tmp_path / "a.jsonl", "--examples", "1", "--data.limit", "2") == 0
    out = capsys.readouterr().out
    assert "Who?<|im_end|>\n<|im_start|>assistant\n[I][<|im_end|>]\n" in out
    assert "2 rows of kind completion (chat template) make 2 examples" in out
    assert "rows whose end of turn carries no loss: 0" in out
    assert "example 2" not in out


def test_show_says_when_training_would_be_refused(model, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"prompt": "Who?", "completion": "I"}\n')
    assert run("show", model, tmp_path / "a.jsonl", "--max-tokens", "4") == 0
    shown = capsys.readouterr()
    assert "rows with no token to learn: 1" in shown.out
    assert "would be refused" in shown.err


def test_show_json_and_ids(model, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text\nThe sky\n")
    run("show", model, tmp_path / "a.csv", "--json")
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["rows"], report["truncated"]) == ("text", 1, 0)
    run("show", model, tmp_path / "a.csv", "--ids")
    assert "       2 loss '</s>'" in capsys.readouterr().out


def test_an_unknown_setting_names_the_nearest(model, tmp_path):
    (tmp_path / "a.csv").write_text("text\nThe sky\n")
    with pytest.raises(InputError, match="limit"):
        run("show", model, tmp_path / "a.csv", "--limt", "3")
    with pytest.raises(InputError, match="unknown option --limit"):
        run("list", "--limit", "3")


def test_list_names_every_set(capsys):
    run("list")
    out = capsys.readouterr().out
    assert all(name in out for name in ("python-help", "python-source", "movie-reviews", "PSF-2.0", "MIT"))
    run("list", "--json")
    assert len(json.loads(capsys.readouterr().out)) == 3
