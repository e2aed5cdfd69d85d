"""lmworks generate and chat with --json-schema, --regex and --choices."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_model import save_tiny

from lmworks.commands.main import main

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("llguidance", reason="grammars need lmworks[grammar]")

SCHEMA = {
    "type": "object",
    "properties": {"sky": {"enum": ["blue", "grey"]}, "sea": {"type": "string"}},
    "required": ["sky", "sea"],
}


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(name="schema")
def _schema(tmp_path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


def run(capsys, *arguments: str) -> str:
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_a_text_keeps_to_the_option(folder, schema, capsys):
    text = run(capsys, "generate", folder, "The sky", "--json-schema", schema, "--max-tokens", "80")
    jsonschema.validate(json.loads(text), SCHEMA)
    answer = run(capsys, "chat", folder, "--ask", "Sky?", "--json-schema", schema, "--max-tokens", "80")
    jsonschema.validate(json.loads(answer.split("\n", 1)[1]), SCHEMA)
    written = run(capsys, "generate", folder, "The sky", "--json-object", "--max-tokens", "40")
    assert isinstance(json.loads(written), dict)
    text = run(capsys, "generate", folder, "The sky", "--regex", "[0-9]{2}:[0-9]{2}")
    assert re.fullmatch("[0-9]{2}:[0-9]{2}", text.strip())
    assert run(capsys, "generate", folder, "The sky is", "--choices", "blue, not blue").strip() in ("blue", "not blue")
    texts = run(capsys, "generate", folder, "The sky", "Who", "--choices", "a,b").split("\n\n")
    assert [text[-1] in "ab" for text in texts if text] == [True, True]


def test_a_fault_names_the_file_and_the_place_in_the_schema(folder, schema, capsys):
    schema.write_text('{"properties": {"sky": {"type": "blue"}}}')
    assert main(["generate", str(folder), "The sky", "--json-schema", str(schema)]) == 2
    assert f"{schema}: #/properties/sky: the schema cannot be compiled" in capsys.readouterr().err
    schema.write_text('{"properties": ')
    assert main(["generate", str(folder), "The sky", "--json-schema", str(schema)]) == 2
    assert "not JSON" in capsys.readouterr().err
