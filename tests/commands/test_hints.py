"""Hints work when they are obeyed: what an error proposes is run, by each command that can meet it and from Python."""

import json
import re
import shlex

import pytest
from tiny_model import options, save_tiny, settings

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.settings import parse_overrides
from lmworks.commands.main import main

SHOPS = [f"Where is shop {n}?" for n in range(12)]
TALK = [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Until nine."}]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


BAD = {
    "tabbed text": ("a.txt", "".join(f"{text}\t{n % 2}\n" for n, text in enumerate(SHOPS))),
    "tabbed text, label first": ("a.txt", "".join(f"{n % 3}\t{text}\n" for n, text in enumerate(SHOPS))),
    "no header": ("a.tsv", "".join(f"{'ab'[n % 2]}\t{text}, do you know\n" for n, text in enumerate(SHOPS))),
    "no header, twice": ("a.csv", "yes,yes\n" + "".join(f"{text},In hall {n}.\n" for n, text in enumerate(SHOPS))),
    "unknown columns": ("a.csv", "one,two\n" + "".join(f"{text},In hall {n}.\n" for n, text in enumerate(SHOPS))),
    "open quote": ("a.csv", "prompt,completion\n" + "".join(f"{text},Left.\n" for text in SHOPS) + 'Where?,"Here\n'),
    "a label that is missing": ("a.jsonl", lines([*({"text": text} for text in SHOPS), {"text": "a", "label": 1}])),
    "a bad row": ("a.jsonl", lines([*({"text": text} for text in SHOPS), {"text": None}])),
    "preferences": ("a.jsonl", lines([{"prompt": text, "chosen": "a", "rejected": "b"} for text in SHOPS])),
    "chosen conversations": ("a.jsonl", lines([{"chosen": TALK, "rejected": TALK}] * 12)),
    "no ending": ("rows", "\n".join(SHOPS)),
    "text and label swapped": ("a.jsonl", lines([{"text": "ab"[n % 2], "label": f"Shop {n}?"} for n in range(60)])),
    "numbers of rows as labels": ("a.jsonl", lines([{"text": f"Shop {n}?", "label": n} for n in range(60)])),
    "a key that stands twice": ("a.jsonl", lines([{"text": text} for text in SHOPS]) + '{"text": "a", "text": "b"}\n'),
}  # fmt: skip


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(params=BAD, name="bad")
def _bad(request, tmp_path):
    name, content = BAD[request.param]
    path = tmp_path / name
    path.write_text(content)
    return str(path)


def proposals(hint):
    """The options of each way that a hint offers: ways are divided by "; or" and a comma with "or"."""
    result = []
    for way in re.split(r"[;,] or ", hint):
        words = shlex.split(way)
        places = [place for place, word in enumerate(words) if word.startswith("--data.")]
        if places:
            result.append([words[index] for place in places for index in (place, place + 1)])
    assert result, hint
    return result


def test_data_show_and_plan(model, bad, capsys):
    for words in (["data", "show"], ["plan"]):
        more = [*options(), "--data.held_out", "0"] if words == ["plan"] else []
        assert main([*words, model, bad, *more]) == 2
        hint = capsys.readouterr().err.partition("hint: ")[2]
        for way in proposals(hint):
            assert main([*words, model, bad, *more, *way]) == 0, way
            capsys.readouterr()


def test_tune(model, bad, tmp_path, capsys):
    words = ["tune", model, bad, *options(), "--train.steps", "1", "--data.held_out", "0"]
    assert main([*words, "--out", str(tmp_path / "refused")]) == 2
    hint = capsys.readouterr().err.partition("hint: ")[2]
    assert not (tmp_path / "refused").exists()
    assert main([*words, "--out", str(tmp_path / "run"), *proposals(hint)[0]]) == 0


def test_python(model, bad, tmp_path):
    values = settings()
    data = {"source": bad, **values.pop("data"), "held_out": 0}
    with pytest.raises(InputError) as caught:
        lmworks.tune(model, data, out=tmp_path / "refused", **values)
    way = proposals(caught.value.hint)[0]
    output = parse_overrides([f"{name}={value}" for name, value in zip(way[::2], way[1::2], strict=True)])["data"]
    values["train"]["steps"] = 1
    run = lmworks.tune(model, {**data, **output}, out=tmp_path / "run", **values)
    assert run.stopped == "finished"
