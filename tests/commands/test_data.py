"""lmworks data: what it prints."""

import argparse
import json
import re

import pytest
from tiny_tasks import TEXTS, bert_like, t5_like
from tiny_tokenizers import CHATML, byte_level

from lmworks.base.errors import InputError
from lmworks.commands import data
from lmworks.commands.main import main


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
    assert "2 rows of kind completion (chat template) make 2 examples, those to be held out among them" in out
    assert not re.search(r": 0$", out, re.MULTILINE)  # lines that say nothing
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


# Objectives


def saved(tokenizer, folder, **config):
    """A folder with a tokenizer and a config."""
    tokenizer.save(folder)
    sizes = {"vocab_size": 1000, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"model_type": "llama", "num_attention_heads": 1, "max_position_embeddings": 48}
    (folder / "config.json").write_text(json.dumps({**heads, **sizes, **config}))
    return folder


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(TEXTS))
    return path


def test_masked_words_show_input_and_target(tmp_path, text, capsys):
    folder = saved(bert_like(), tmp_path / "bert")
    words = ["show", folder, text, "--task", "masked", "--task.mask_rate", "0.5", "--draws", "2"]
    assert run(*words) == 0
    shown = capsys.readouterr()
    assert "--- example 1, draw 2, " in shown.out
    for drawn in re.findall(r"^ \[CLS\].*", shown.out, re.MULTILINE)[:2]:
        meant = re.sub(r"\[(\[MASK\]|[^\s→\]]+)→(.)\]", r"\2", drawn)
        meant = re.sub(r"\[(\[MASK\]|[^\s→\]]+)→([^\]]+)\]", r"\2", meant)
        plain = re.sub(r"\[CLS\]|\[SEP\]|[^\w.,;'!?]", "", meant.replace("##", ""))
        assert plain.startswith("Theskyisblue,andthesea")
    counts = re.search(r"one draw hides (\d+) of (\d+) tokens that may be hidden \((.+)% of these\); of the", shown.out)
    assert counts, shown.out
    assert float(counts[3]) == pytest.approx(100 * int(counts[1]) / int(counts[2]), abs=0.06)
    assert re.search(r"of the hidden are [\d.]+% masked", shown.out)
    assert "trains an encoder; this model is a decoder" in shown.err
    run(*words)
    assert capsys.readouterr().out == shown.out


def test_pairs_show_types_and_label(tmp_path, text, capsys):
    folder = saved(bert_like(), tmp_path / "bert")
    run("show", folder, text, "--task", "masked", "--task.next_sentence", "true", "--draws", "6")
    out = capsys.readouterr().out
    assert "next sentence: the second text follows the first" in out
    assert "next sentence: the second text does not follow the first" in out
    assert "\ntype 0:  [CLS]" in out
    assert "\ntype 1: " in out
    assert re.search(r"^next sentence: .*\d × the second text", out, re.MULTILINE)


def test_one_long_text_says_what_is_counted(model, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("The sky is blue. " * 40)
    assert run("show", model, tmp_path / "a.txt", "--examples", "0") == 0
    out = capsys.readouterr().out
    counts = re.search(r"1 row of kind text \(plain\) makes (\d+) examples", out)
    assert counts, out
    assert int(counts[1]) > 1
    assert "the examples have" in out


def test_spans_show_source_and_target(tmp_path, text, capsys):
    folder = saved(t5_like(), tmp_path / "t5")
    text.write_text(TEXTS[2])
    run("show", folder, text, "--task", "spans", "--examples", "1")
    out = capsys.readouterr().out
    source, target = (re.search(rf"^{side}: (.*)", out, re.MULTILINE).group(1) for side in ("source", "target"))
    assert target.startswith("[<pad>][<extra_id_0>]")
    assert source.endswith("[</s>]")
    assert target.endswith("[</s>]")
    messages = dict(re.findall(r"\[(<extra_id_\d+>)\]([^\[]+)", target))
    mended = re.sub(r" ?\[(<extra_id_\d+>)\]", lambda result: messages[result.group(1)], source.removesuffix("[</s>]"))
    assert mended.strip() in TEXTS[2]


def test_rows_of_source_and_target(tmp_path, capsys):
    folder = saved(t5_like(), tmp_path / "t5")
    (tmp_path / "a.tsv").write_text("en\tfr\nThe sky\tWho are you\n")
    words = ["show", folder, tmp_path / "a.tsv", "--columns", "{source: en, target: fr}", "--task", "seq2seq"]
    run(*words)
    out = capsys.readouterr().out
    assert "source:  The sky[</s>]" in out
    assert "target: [<pad>] Who are you[</s>]" in out
    run(*words, "--ids")
    assert re.search(r"1 target loss '</s>'", capsys.readouterr().out)
    run(*words, "--json")
    assert json.loads(capsys.readouterr().out)["kind"] == "pairs"


def test_settings_of_a_task_are_checked(tmp_path, text):
    folder = saved(t5_like(), tmp_path / "t5")
    with pytest.raises(InputError, match="mask_rate"):
        run("show", folder, text, "--task", "spans", "--task.mask_rat", "0.2")
    with pytest.raises(InputError, match="no mask token"):
        run("show", folder, text, "--task", "masked")
    with pytest.raises(InputError, match="masked"):
        run("show", folder, text, "--task", "maskd")


def test_a_negative_seed_is_refused(capsys):
    assert main(["data", "show", "MODEL", "DATA", "--seed", "-1"]) == 2
    assert "--seed: a seed is not negative" in capsys.readouterr().err
