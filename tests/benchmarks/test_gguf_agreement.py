"""How GGUF files are compared with llama.cpp's reading of them: what is asked, what counts as the same, the tables."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import gguf_agreement
import pytest
from tiny_model import save_tiny

from lmworks.kernels.native_module import native_module

HERE = {"prompts": [[1], [2]], "answers": [[5, 6, 7], [8, 2]], "template": "aa", "signature": "s"}


def test_fifty_prompts_none_twice() -> None:
    assert len(gguf_agreement.prompts()) == len(set(gguf_agreement.prompts())) == 50


def test_answers_tokens_and_template_are_compared() -> None:
    same = gguf_agreement.compare(HERE, HERE)
    assert (same["same_answers"], same["same_tokens"], same["same_template"]) == (100.0, True, True)
    assert same["agreed_tokens"] == 2.5
    other = gguf_agreement.compare(HERE, HERE | {"answers": [[5, 9, 7], [8, 2]], "template": "ab"})
    assert (other["same_answers"], other["same_tokens"], other["same_template"]) == (50.0, True, False)
    assert other["agreed_tokens"] == 1.5
    assert all(line.reached for line in gguf_agreement.judge({"q8": same}))
    assert [line.reached for line in gguf_agreement.judge({"q4": other})] == [False, True, False]
    table = "\n".join(gguf_agreement.agreement_table({"q8": same, "q4": other}))
    assert "100 %" in table
    assert "50 %" in table
    assert table.count("NO") == 1


def test_quality_is_compared_where_both_wrote_a_file() -> None:
    ours, theirs = ({"bits_per_byte": bits, "bytes": 2e6} for bits in (0.99, 1.0))
    lines = gguf_agreement.quality_table({"f16": {"lmworks": ours}, "q4": {"lmworks": ours, "llama.cpp": theirs}})
    assert lines[1].split() == ["f16", "0.9900", "2.0", "-", "-", "-"]
    assert lines[2].split()[-2:] == ["-1.00", "%"]


@pytest.mark.skipif(native_module() is None, reason="no native kernels")
def test_a_file_is_exported_read_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, file = save_tiny(tmp_path / "model", intermediate_size=64), tmp_path / "m.gguf"
    assert "whole blocks of 256" in gguf_agreement.export(str(model), file, "tq2")
    assert gguf_agreement.export(str(model), file, "float32") == ""
    monkeypatch.setattr(gguf_agreement, "SUBJECTS", ("tea",))
    monkeypatch.setattr(gguf_agreement, "NEW_TOKENS", 6)
    native, by_torch = (gguf_agreement.ours(str(file), backend) for backend in ("native", "torch"))
    assert native["signature"] == "backend:native|weights:float32"
    assert by_torch["signature"] == "backend:torch|weights:float32"
    assert native["answers"] == by_torch["answers"]
    assert [len(row) for row in native["answers"]] == [6] * 5 or any(row[-1] in (2, 4) for row in native["answers"])
    assert bytes.fromhex(native["template"]).startswith(b"{% for message")
    text = tmp_path / "text.txt"
    text.write_text("the sky is blue and the sea is blue\n" * 20, encoding="utf-8")
    scored = gguf_agreement.score(str(file), str(text))
    assert scored["bytes"] == file.stat().st_size
    assert 1 < scored["bits_per_byte"] < 20


@pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="llama-cpp-python is installed")
def test_without_the_peer_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gguf_agreement.py"])
    assert gguf_agreement.main() == 1
    assert "pip install llama-cpp-python" in capsys.readouterr().err
