"""lmworks evaluate: one command runs what a model can be asked, keeps what was sent, says what was left out and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from published_rows import PUBLISHED
from tiny_kinds import save_encoder
from tiny_model import save_tiny

import lmworks
from lmworks.commands.main import main
from lmworks.evaluate.metric_score import MetricScore

BROAD = ("sentiment", "wnut17", "squad", "scitldr", "winogender", "blimp", "sts-images")


@pytest.fixture(scope="module", name="decoder")
def _decoder(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("decoder") / "llama", context=512)


@pytest.fixture(name="data")
def _data(tmp_path) -> Path:
    """Files of some of the benchmarks of suite broad; those of the others are missing."""
    for entry in PUBLISHED:
        if entry.benchmark in BROAD:
            entry.write(tmp_path / "data")
    return tmp_path / "data"


def evaluate(model: Path, suite: str, data: Path, out: Path, *options: str) -> dict:
    words = ["evaluate", str(model), "--suite", suite, "--data", str(data), "--out", str(out), *options]
    assert main(words) == 0
    return json.loads((out / "evaluation.json").read_text())


def test_a_decoder_is_asked_all_that_there_are_files_of(decoder, data, tmp_path, capsys) -> None:
    evaluation = evaluate(decoder, "broad", data, tmp_path / "out", "--shots", "0", "--max-tokens", "3")
    assert [entry["name"] for entry in evaluation["benchmarks"]] == list(BROAD)
    assert {entry["name"]: entry["by"] for entry in evaluation["benchmarks"]} == {
        **dict.fromkeys(("sentiment", "winogender", "blimp"), "likelihood"),
        **dict.fromkeys(("wnut17", "squad", "scitldr"), "text"),
        "sts-images": "vectors",
    }
    left_out = {entry["name"]: entry["reason"] for entry in evaluation["left_out"]}
    assert left_out.keys() == {"pud-en-fr", "gsm8k", "beir"}
    assert "put grade_school_math/data/test.jsonl anywhere below" in left_out["gsm8k"]
    for entry in evaluation["benchmarks"]:
        for score in entry["scores"]:
            assert MetricScore.from_json(score).signature.with_settings(suite=entry["name"])
            assert f"|suite:{entry['name']}|" in score["signature"]
    out = capsys.readouterr().out
    assert "left out: gsm8k: the files of gsm8k are not there" in out
    assert "same answer in pairs" in out
    assert evaluation["signature"].startswith("backend:native|") or evaluation["signature"].startswith("backend:torch|")


def test_a_sentence_encoder_is_asked_what_it_can_be(data, tmp_path, capsys) -> None:
    encoder = save_encoder(tmp_path / "bert")
    evaluation = evaluate(encoder, "broad", data, tmp_path / "out", "--shots", "0")
    assert "sts-images" in {entry["name"] for entry in evaluation["benchmarks"]}
    reasons = {entry["name"]: entry["reason"] for entry in evaluation["left_out"]}
    assert reasons["squad"] == "it writes texts, which no encoder does"
    assert reasons["wnut17"] == "it needs a head that tags words, or a model that writes"


def test_the_ids_that_were_sent_are_kept_with_what_came_back(decoder, data, tmp_path) -> None:
    evaluate(decoder, "blimp", data, tmp_path / "out", "--backend", "torch")
    (line,) = (tmp_path / "out" / "requests" / "blimp.jsonl").read_text().splitlines()
    row = json.loads(line)
    network = lmworks.load(decoder).network
    (request,) = row["requests"]
    for ids, expected in zip(request["options"], request["log_likelihoods"], strict=True):
        with torch.no_grad():
            whole = network(torch.tensor([[*request["prompt"], *ids]])).logits[0].log_softmax(-1)
        begin = len(request["prompt"]) - 1
        nats = sum(float(whole[begin + place, token]) for place, token in enumerate(ids))
        assert expected == pytest.approx(nats, abs=1e-3)
    best = request["log_likelihoods"].index(max(request["log_likelihoods"]))
    assert (row["predictions"]["answer"], row["references"], row["group"]) == (best, [0], "wh_island")
    assert row["place"].endswith("wh_island.jsonl:1")


def test_sensitivity_asks_the_same_rows_in_other_forms(decoder, data, tmp_path, capsys) -> None:
    (data / "dev_rand_split.jsonl").write_text(
        "".join(
            json.dumps({"id": str(n), "question": {"stem": f"Who is {n}?", "choices": [
                {"text": text, "label": label} for text, label in (("you", "A"), ("I", "B"), ("the sea", "C"))]},
                "answerKey": "ABC"[n % 3]}) + "\n"
            for n in range(9)
        )
    )  # fmt: skip
    evaluation = evaluate(decoder, "commonsenseqa,blimp,sts-images", data, tmp_path / "out", "--sensitivity")
    by_name = {entry["benchmark"]: entry for entry in evaluation["sensitivity"]}
    listed = by_name["commonsenseqa"]
    names = [variant["name"] for variant in listed["variants"]]
    assert names == ["with chat template", "with BOS", "options in another order"]
    values = [listed["value"], *(variant["value"] for variant in listed["variants"])]
    assert listed["spread"] == pytest.approx(max(values) - min(values))
    signatures = {variant["signature"] for variant in listed["variants"]}
    assert len(signatures) == 3
    assert [variant["name"] for variant in by_name["blimp"]["variants"]] == ["without BOS"]
    assert by_name["blimp"]["left_out"] == [
        "chat template: there is no prompt", "order of options: they do not stand in the prompt"
    ]  # fmt: skip
    assert by_name["sts-images"]["left_out"] == ["asked by vectors, which has no prompt"]
    kept = (tmp_path / "out" / "with-BOS" / "requests" / "commonsenseqa.jsonl").read_text().splitlines()
    base = (tmp_path / "out" / "requests" / "commonsenseqa.jsonl").read_text().splitlines()
    for one, other in zip(base, kept, strict=True):
        plain, with_bos = (json.loads(line)["requests"][0]["prompt"] for line in (one, other))
        assert with_bos == [1, *plain]
    moved = json.loads((tmp_path / "out" / "options-in-another-order" / "requests" / "commonsenseqa.jsonl")
                       .read_text().splitlines()[0])  # fmt: skip
    assert moved["references"] == [2]
    assert "how far the form of the prompt matters" in capsys.readouterr().out


def test_a_limit_draws_rows_by_seed_and_keeps_pairs_together(decoder, data, tmp_path) -> None:
    kinds = (("male", "he"), ("female", "she"), ("neutral", "they"))
    rows = "".join(
        f"nurse{n}.patient.0.{kind}.txt\tThe nurse told the patient that {word} could go.\n"
        for n in range(6)
        for kind, word in kinds
    )
    (data / "all_sentences.tsv").write_text(f"sentid\tsentence\n{rows}")
    drawn = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / f"out{number}"
        evaluation = evaluate(decoder, "winogender", data, out, "--limit", "7", "--seed", str(seed))
        drawn.append(
            [json.loads(line)["row"] for line in (out / "requests" / "winogender.jsonl").read_text().splitlines()]
        )
        settings = evaluation["benchmarks"][0]["scores"][0]["signature"]
        assert f"drawn:6 of 18 by seed {seed}" in settings
    assert drawn[0] == drawn[1] != drawn[2]
    assert [row // 3 for row in drawn[0][::3]] == [row // 3 for row in drawn[0][2::3]]


def test_json_is_evaluation_json(decoder, data, tmp_path, capsys) -> None:
    evaluation = evaluate(decoder, "blimp", data, tmp_path / "out", "--json")
    assert json.loads(capsys.readouterr().out) == evaluation


def test_the_same_in_python(decoder, data, tmp_path) -> None:
    evaluation = lmworks.evaluate_suite(decoder, "blimp", data=data, out=tmp_path / "out", limit=1)
    (result,) = evaluation.results
    assert (result.name, result.rows) == ("blimp", 1)
    opened = lmworks.load(decoder)
    again = lmworks.evaluate_suite(opened, "blimp", data=data)
    assert again.folder is None
    assert again.results[0].scores[0].signature == result.scores[0].signature


def test_suites_are_listed(capsys) -> None:
    assert main(["evaluate", "--list"]) == 0
    out = capsys.readouterr().out
    assert "hellaswag_val.jsonl" in out
    assert "sentiment, wnut17, squad" in out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "no model and suite are named"),
        (["MODEL", "--suite", "arc", "--data", "DATA"], "the files of arc-easy are not there"),
        (["MODEL", "--suite", "blimb", "--data", "DATA"], "there is no suite or benchmark 'blimb'"),
        (["MODEL", "--suite", "blimp", "--data", "DATA", "--out", "DATA"], "is there already and not empty"),
        (["MODEL", "--suite", "blimp", "--data", "DATA", "--limit", "0"], "limit"),
        (["MODEL", "--suite", "squad", "--data", "DATA", "--template", "on", "--shots", "1"], "1 example"),
    ],
)
def test_what_cannot_be_done_is_said(words, fault, decoder, data, tmp_path, capsys) -> None:
    named = [word.replace("MODEL", str(decoder)).replace("DATA", str(data)) for word in words]
    out = [] if not words or "--out" in words else ["--out", str(tmp_path / "out")]
    assert main(["evaluate", *named, *out]) == 2
    assert fault in capsys.readouterr().err
