"""Runs of classifiers by counts of words: rows, journal, card, resuming, bad input."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import lmworks
from lmworks.base.errors import InputError
from lmworks.baselines.tfidf import TextClassifier
from lmworks.baselines.tfidf_settings import settings_of
from lmworks.commands.main import main
from lmworks.run import classical
from lmworks.run.cleaning_effect import cleaning_effects
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

WORDS = {"good": "fine great lovely happy best", "bad": "awful dull broken sad worst"}
SHARED = "the film was quite a story about some people"


def rows(count: int = 120, labels: dict[str, str] = WORDS) -> list[dict]:
    rng = random.Random(1)
    made = []
    for number in range(count):
        label = list(labels)[number % len(labels)]
        words = rng.sample(SHARED.split(), 4) + rng.sample(labels[label].split(), 2)
        made.append({"text": f"{' '.join(words)} {number}", "label": label})
    return made


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


def test_a_run_has_the_same_rows_and_the_same_card_as_a_network_s(reviews: Path, tmp_path: Path) -> None:
    run = lmworks.tune("tfidf-logreg", reviews, out=tmp_path / "run")
    card = run.card
    assert card["run"]["state"] == "finished"
    assert [measure["key"] for measure in card["measures"]][:2] == ["accuracy", "macro_f1"]
    accuracy = card["measures"][0]
    assert accuracy["after"]["value"] == 1.0
    assert accuracy["before"]["value"] == pytest.approx(0.5, abs=0.2)
    train, held_out = corpus.split(corpus.read(reviews), DataSettings())
    assert card["data"]["rows"] == len(train)
    assert sum(map(sum, card["classification"]["confusion"])) == len(held_out)
    alone = TextClassifier.fit(
        [row.values["text"] for row in train.rows], [row.values["label"] for row in train.rows], "tfidf-logreg"
    )
    texts = [row.values["text"] for row in held_out.rows]
    assert run.model.predict(texts) == alone.predict(texts)
    assert {word for word, _ in card["classification"]["heaviest_words"]["bad"]} >= set(WORDS["bad"].split())
    assert "Confusion matrix" in (run.folder / "report.html").read_text()


def test_load_opens_it_and_language_models_refuse_it(reviews: Path, tmp_path: Path) -> None:
    run = lmworks.tune("bow-nb", reviews, out=tmp_path / "run", tfidf={"alpha": 0.5, "cleaning": "case,numbers"})
    for place in (run.folder, run.folder / "final"):
        prediction = lmworks.load(place).predict(["a lovely great film"])[0]
        assert prediction.label == "good"
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
    from lmworks.language_model.opening import open_saved_model

    with pytest.raises(InputError, match="lmworks predict"):
        open_saved_model(run.folder)
    with pytest.raises(InputError, match="dtype was given"):
        lmworks.load(run.folder, dtype="bfloat16")


def test_rows_given_in_python_stay_with_the_run(tmp_path: Path) -> None:
    run = lmworks.tune("majority", rows(), out=tmp_path / "run")
    assert (run.folder / "data.jsonl").is_file()
    assert run.card["measures"][0]["before"]["value"] is None


def test_a_killed_run_is_finished_with_the_same_figures(reviews: Path, tmp_path: Path, monkeypatch) -> None:
    whole = lmworks.tune("tfidf-svm", reviews, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(classical.TextClassifier, "save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lmworks.tune("tfidf-svm", reviews, out=tmp_path / "killed")
    assert lmworks.report(tmp_path / "killed")["run"]["state"] == "unfinished"
    resumed = lmworks.resume(tmp_path / "killed")
    assert resumed.card["run"]["resumed"] == 1
    assert resumed.card["measures"] == whole.card["measures"]
    assert resumed.card["classification"] == whole.card["classification"]
    said: list[str] = []
    lmworks.resume(tmp_path / "killed", said.append)
    assert "has finished already" in said[0]


def test_a_recipe_trains_again_with_changes(reviews: Path, tmp_path: Path, capsys) -> None:
    assert main(["tune", "tfidf-logreg", str(reviews), "--tfidf.C", "3", "--dry-run"]) == 0
    recipe = tmp_path / "my.yaml"
    recipe.write_text(capsys.readouterr().out)
    out = tmp_path / "run"
    assert main(["tune", str(recipe), "--tfidf.ngram_range", "1,1", "--data.held_out", "30", "--out", str(out)]) == 0
    assert "Confusion matrix" in capsys.readouterr().out
    settings = lmworks.load(out).settings
    assert (settings.C, settings.ngram_range) == (3.0, (1, 1))
    assert lmworks.report(out)["data"]["held_out"] == 30


def test_rare_labels_are_said_and_are_not_fatal(tmp_path: Path) -> None:
    few = [*rows(), *({"text": f"rare words here {n}", "label": "rare"} for n in range(3))]
    said: list[str] = []
    run = lmworks.tune("tfidf-logreg", few, out=tmp_path / "run", say=said.append)
    assert any("fewer than 5 rows" in line and "rare" in line for line in said)
    assert any("rare" in note for note in run.card["run"]["notes"])
    alone = [*rows(), {"text": "only one", "label": "lonely"}]
    for seed in range(40):  # until its only row is held out
        alone[-1]["text"] = f"only one {seed}"
        _, held_out = corpus.split(corpus.read(alone), DataSettings())
        if any(row.values["label"] == "lonely" for row in held_out.rows):
            break
    run = lmworks.tune("tfidf-logreg", alone, out=tmp_path / "other")
    assert any("never predicted: lonely" in note for note in run.card["run"]["notes"])
    assert "lonely" in run.card["classification"]["labels"]
    assert "lonely" not in run.model.labels


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        ([{"text": f"a b {n}", "label": (n % 30) / 7} for n in range(90)], "regression"),
        ([{"text": f"a b {n}", "label": f"{n / 7:.3f}"} for n in range(90)], "regression"),
        ([{"text": f"a b {n}", "label": "x"} for n in range(30)], "nothing to learn"),
        ([{"text": f"a b {n}"} for n in range(30)], "rows of kind text"),
        ([{"text": "", "label": "x"}, {"text": "b", "label": "y"}], "row 1"),
    ],
)
def test_rows_that_cannot_be_classified(made: list[dict], fault: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=fault) as raised:
        lmworks.tune("tfidf-logreg", made, out=tmp_path / "run")
    assert raised.value.hint


def test_rows_without_text_can_be_left_out(tmp_path: Path) -> None:
    made = [*rows(), {"text": " ", "label": "bad"}]
    run = lmworks.tune("bow-nb", made, out=tmp_path / "run", data={"on_bad_row": "skip"})
    assert run.card["data"]["skipped"] == 1


def test_what_a_step_of_cleaning_is_worth_is_measured_in_pairs() -> None:
    noisy = [{**row, "text": f"<p>{row['text'].upper() if n % 3 else row['text']}"} for n, row in enumerate(rows())]
    settings = DataSettings(held_out=40)
    effects = cleaning_effects(noisy, ["html", "case"], settings)
    assert [effect.steps for effect in effects] == [(), ("html",), ("case",), ("html", "case")]
    train, held_out = classical.labelled_rows(noisy, settings)
    chosen = settings_of("tfidf-logreg", {"cleaning": "html,case"})
    texts, labels = ([row.values[name] for row in train.rows] for name in ("text", "label"))
    predicted = TextClassifier.fit(texts, labels, chosen).predict([row.values["text"] for row in held_out.rows])
    right = [prediction.label == row.values["label"] for prediction, row in zip(predicted, held_out.rows, strict=True)]
    assert effects[3].accuracy == sum(right) / 40
    assert effects[3].change is not None
    assert effects[3].change.value == pytest.approx(effects[3].accuracy - effects[0].accuracy)
    with pytest.raises(InputError, match="too few"):
        cleaning_effects(noisy, ["html"], DataSettings(held_out=2))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["plan", "bow-nb", "x.csv"], "lmworks tune bow-nb x.csv"),
        (["pretrain", "bow-nb", "x.csv"], "lmworks tune bow-nb x.csv"),
        (["tune", "tfidf-logrex", "x.csv"], "did you mean tfidf-logreg"),
        (["tune", "tfidf-logreg"], "lmworks tune tfidf-logreg DATA"),
    ],
)
def test_the_hint_names_the_command(words: list[str], hint: str, capsys) -> None:
    assert main(words) == 2
    assert hint in capsys.readouterr().err


def test_its_recipe_is_shown(reviews: Path, tmp_path: Path, capsys) -> None:
    assert main(["recipe", "show", "bow-nb", str(reviews), "--tfidf.alpha", "2"]) == 0
    (tmp_path / "my.yaml").write_text(capsys.readouterr().out)
    assert main(["tune", str(tmp_path / "my.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert lmworks.load(tmp_path / "run").settings.alpha == 2.0


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"train": {"epochs": 2}}, "setting of networks"),
        ({"method": "lora"}, "setting of networks"),
        ({"tfidf": {"alpha": 2}}, "does not use it"),
        ({"tfidf": 3}, "group of settings"),
    ],
)
def test_settings_of_other_models_are_refused(options: dict, fault: str, reviews: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=fault):
        lmworks.tune("tfidf-logreg", reviews, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
