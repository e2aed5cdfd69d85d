"""The model card: the hub's own reader reads its header, its figures are the report card's, and it tells no secret."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_model import QUESTIONS

from lmworks.reports import card as report
from lmworks.reports import cost
from lmworks.sharing.model_card import Published, metadata, model_card
from lmworks.sharing.model_use import ModelUse

CHAT = ModelUse("text-generation", has_template=True, context=256)
PUBLISHED = Published("someone/faq", "them/base", "apache-2.0", "en", "rounded to 4 bits")


@pytest.fixture
def card(shared_run: Path) -> dict[str, Any]:
    return report.build(shared_run)


def text_of(card: dict[str, Any], use: ModelUse = CHAT, published: Published = PUBLISHED) -> str:
    return model_card(card, cost.cost(card["run"]["path"]), use, published)


def header_of(text: str) -> dict[str, Any]:
    match = re.match(r"\A---\n(.*?)\n---\n", text, re.S)
    assert match
    return yaml.safe_load(match[1])


def test_the_hubs_own_reader_reads_the_header(card, tmp_path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    path = tmp_path / "README.md"
    path.write_text(text_of(card), encoding="utf-8")
    data = hub.ModelCard.load(path).data
    assert (data.license, data.language, data.base_model) == ("apache-2.0", "en", "them/base")
    assert (data.library_name, data.pipeline_tag, data.tags) == ("transformers", "text-generation", ["lmworks", "lora"])
    figures = {result.metric_type: result.metric_value for result in data.eval_results}
    measured = {measure["key"]: measure["after"]["value"] for measure in card["measures"]}
    assert figures["held_out_loss"] == measured["held_out_loss"]
    assert figures["task"] == measured["task"]
    assert not [key for key in figures if key.startswith("general")]
    assert {result.dataset_type for result in data.eval_results} == {"secret-faq.jsonl"}


def test_the_table_has_the_figures_of_the_report_card(card) -> None:
    from lmworks.base import figures

    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text_of(card).splitlines() if "|" in line]
    assert len(rows) == 2 + len(card["measures"])
    for row, measure in zip(rows[2:], card["measures"], strict=True):
        assert row[1:3] == [figures.number(measure[side]["value"]) for side in ("before", "after")]
        assert row[-1] == (measure["verdict"] or "")


def test_what_it_learned_from_its_limits_and_its_energy_are_said(card) -> None:
    text = text_of(card)
    for title in ("How to use", "Training data", "Training", "Measured", "Limits", "What it cost"):
        assert f"\n## {title}\n" in text
    assert "- rows trained on: 52" in text
    assert "- rows held out: 8" in text
    assert "- base: them/base" in text
    assert "- its weights: rounded to 4 bits" in text
    assert "It reads 256 tokens of a text at a time." in text
    assert re.search(r"- energy: [\d.,]+ k?J for training, (estimated|measured)", text)
    co2 = header_of(text)["co2_eq_emissions"]
    assert co2["emissions"] == pytest.approx(cost.cost(card["run"]["path"]).grams_co2, abs=1e-4)
    assert co2["training_type"] == "fine-tuning"


def test_no_row_and_no_folder_of_this_machine_is_in_it(card, shared_run) -> None:
    text = text_of(card)
    for row in QUESTIONS:
        assert row["prompt"] not in text
        assert row["completion"] not in text
    assert str(shared_run.parent) not in text
    assert re.search(r"(?<![\w./~:-])/(?:[\w.-]+/)+", text) is None
    assert card["samples"], "the run's card has samples, which could have been in it"


def test_what_is_not_known_is_left_out(card) -> None:
    values = metadata(card, cost.cost(card["run"]["path"]), ModelUse(None), Published("faq"))
    assert not {"license", "language", "base_model", "base_model_relation", "datasets", "pipeline_tag"} & values.keys()
    assert values["library_name"] == "lmworks"


def test_an_unfinished_run_says_so(shared_run, tmp_path) -> None:
    events = [json.loads(line) for line in (shared_run / "journal.jsonl").read_text().splitlines()]
    kept = [event for event in events if event["event"] not in ("finish", "session_end")]
    cut = [event for event in kept if event.get("when") != "after"]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in cut))
    text = text_of(report.build(tmp_path))
    assert "The run is not finished" in text


def test_a_label_that_is_markup_stays_text(card) -> None:
    card["measures"][0]["baseline"] = {"label": "<b>|x", "value": 0.5}
    text = text_of(card)
    assert "&lt;b>\\|x" in text
    assert "<b>" not in text
