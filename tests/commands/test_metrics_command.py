"""lmworks metrics: scores of files with intervals and signatures; two systems compared; faults by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sacrebleu
from damaged_texts import damaged, relabelled, sentences

import lmworks
from lmworks.commands.main import main
from lmworks.evaluate.metric_score import MetricScore
from lmworks.evaluate.significance import mcnemar
from lmworks.text.row_files import write_rows


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metrics")
    right = sentences(60)
    files = {"right": right, "good": damaged(right, 1, 0.1), "poor": damaged(right, 2, 0.4)}
    for name, texts in files.items():
        (folder / f"{name}.txt").write_text("".join(f"{text}\n" for text in texts))
    return folder


def as_json(capsys, *words: object) -> dict:
    assert main(["metrics", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_table_with_details_notes_and_signatures(folder: Path, capsys) -> None:
    words = ["metrics", str(folder / "good.txt"), str(folder / "right.txt"), "--metrics", "bleu,token_f1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    texts = [(folder / f"{name}.txt").read_text().splitlines() for name in ("good", "right")]
    expected = sacrebleu.corpus_bleu(texts[0], [texts[1]])
    assert f"{expected.score:.2f}" in out
    assert "brevity penalty" in out
    assert f"signature: bleu|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|sacrebleu:{sacrebleu.__version__}" in out
    assert "95 % interval" in out


def test_json_holds_the_scores_whole(folder: Path, capsys) -> None:
    result = as_json(capsys, folder / "good.txt", folder / "right.txt", "--metrics", "bleu,chrf,exact_match")
    assert result["rows"] == 60
    scores = [MetricScore.from_json(each) for each in result["scores"]]
    again = lmworks.measure(folder / "good.txt", folder / "right.txt", metrics=["bleu", "chrf", "exact_match"])
    assert scores == again.scores
    for score in scores:
        assert score.interval[0] <= score.value <= score.interval[1]
        assert score.rows == 60


def test_usual_metrics_without_a_name(folder: Path, capsys) -> None:
    result = as_json(capsys, folder / "good.txt", folder / "right.txt")
    names = [each["metric"] for each in result["scores"]]
    assert names[:3] == ["bleu", "chrf", "ter"]
    assert "exact_match" in names
    assert any(note.startswith("read as texts") for note in result["notes"])
    alone = as_json(capsys, folder / "good.txt")
    assert [each["metric"] for each in alone["scores"]] == ["distinct1", "distinct2", "self_bleu", "repetition"]


@pytest.mark.parametrize("test", ["bootstrap", "permutation"])
def test_two_systems_are_compared_in_pairs(folder: Path, capsys, test: str) -> None:
    words = [folder / "good.txt", folder / "right.txt", "--metrics", "bleu,ter,token_f1", "--test", test]
    result = as_json(capsys, *words, "--baseline", folder / "poor.txt")
    for each in result["scores"]:
        difference = each["difference"]
        assert difference["test"] == test
        assert difference["value"] == pytest.approx(each["value"] - difference["baseline"]["value"])
        assert (difference["value"] > 0) is (each["better"] == "higher")
        assert difference["p_value"] < 0.01
        assert difference["p_value"] <= difference["adjusted_p_value"] <= 3 * difference["p_value"]
        assert difference["interval"][0] <= difference["value"] <= difference["interval"][1]
    same = as_json(capsys, *words, "--baseline", folder / "good.txt")
    assert {each["difference"]["p_value"] for each in same["scores"]} == {1.0}


def test_right_and_wrong_are_compared_by_mcnemar(tmp_path: Path, capsys) -> None:
    right = ["yes", "no", "maybe"] * 20
    sides = [relabelled(right, seed, share) for seed, share in ((1, 0.2), (2, 0.6))]
    for name, labels in (("r", right), ("a", sides[0]), ("b", sides[1])):
        write_rows(tmp_path / f"{name}.csv", [{"label": label} for label in labels])
    words = [tmp_path / "a.csv", tmp_path / "r.csv", "--baseline", tmp_path / "b.csv"]
    result = as_json(capsys, *words)
    by_name = {each["metric"]: each for each in result["scores"]}
    assert list(by_name) == ["accuracy", "macro_f1", "weighted_f1", "mcc"]
    hits = [[ours == label for ours, label in zip(side, right, strict=True)] for side in sides]
    alone = sum(a and not b for a, b in zip(*hits, strict=True)), sum(b and not a for a, b in zip(*hits, strict=True))
    assert by_name["accuracy"]["difference"]["test"] == "mcnemar"
    assert by_name["accuracy"]["difference"]["p_value"] == pytest.approx(mcnemar(*alone))
    assert by_name["macro_f1"]["difference"]["test"] == "bootstrap"
    assert main(["metrics", *map(str, words)]) == 0
    assert "p, Holm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["good.txt", "right.txt", "--metrics", "bleurt"], "there is no metric 'bleurt'"),
        (["good.txt", "right.txt", "--metrics", "macro_f1"], "macro_f1 counts labels"),
        (["good.txt", "right.txt", "--test", "mcnemar"], "a test compares with other predictions"),
        (["good.txt", "right.txt", "--tokenize", "words"], "there is no tokenizer 'words'"),
        (["nowhere.txt", "right.txt"], "there is no such file"),
        ([], "no file of predictions is given"),
        (["good.txt", "right.txt", "--metrics", ""], "there is no metric ''"),
        (
            ["good.txt", "right.txt", "--metrics", "bleu", "--baseline", "poor.txt", "--test", "mcnemar"],
            "McNemar's test fits shares of right rows alone",
        ),
    ],
)
def test_faults_are_said(folder: Path, capsys, monkeypatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(folder)
    assert main(["metrics", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "hint:" in error


def test_all_metrics_are_listed(capsys) -> None:
    assert main(["metrics", "--list"]) == 0
    out = capsys.readouterr().out
    assert "rougeLsum" in out
    assert "calibration_error" in out
