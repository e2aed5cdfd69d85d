"""The classifiers by counts predict what scikit-learn's own pipelines predict, and are stored without loss."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from lmworks.base.errors import InputError
from lmworks.baselines.tfidf import TextClassifier
from lmworks.baselines.tfidf_features import ngrams
from lmworks.baselines.tfidf_settings import PRESETS, TfidfSettings, settings_of

SHARED = next(
    (folder for above in Path(__file__).resolve().parents if (folder := above / "shared" / "data").is_dir()),
    Path(__file__).resolve().parents[3] / "shared" / "data",
)
COLOURS = {
    "sky": ["The sky is blue", "blue SKY, blue sea", "a sky without clouds", "the clouds of the sky", "sky blue 42"],
    "cat": ["The cat sat down", "a cat, a mat", "CATS don't sit", "my cat is grey", "the grey cat's mat", "cat"],
    "money": ["stocks fell 3.5 %", "the bank of stocks", "Stocks; bonds", "bank, bank", "money is in the bank"],
}


def written(names: tuple[str, ...] = ("sky", "cat", "money")) -> tuple[list[str], list[str]]:
    pairs = [(text, name) for name in names for text in COLOURS[name]]
    return [text for text, _ in pairs], [name for _, name in pairs]


def theirs(preset: str) -> Pipeline:
    """The pipeline that a user of scikit-learn would write."""
    words: dict[str, Any] = {"ngram_range": (1, 2), "min_df": 2, "sublinear_tf": True}
    characters = {"analyzer": "char_wb", "ngram_range": (2, 5), "min_df": 2, "max_features": 200_000}
    return {
        "majority": lambda: make_pipeline(CountVectorizer(), DummyClassifier(strategy="prior")),
        "bow-nb": lambda: make_pipeline(CountVectorizer(), MultinomialNB()),
        "tfidf-nb": lambda: make_pipeline(TfidfVectorizer(), MultinomialNB(alpha=0.1)),
        "tfidf-logreg": lambda: make_pipeline(TfidfVectorizer(**words), LogisticRegression(C=10, max_iter=1000)),
        "tfidf-svm": lambda: make_pipeline(
            TfidfVectorizer(**words),
            CalibratedClassifierCV(LinearSVC(random_state=0), method="sigmoid", ensemble=False, cv=5),
        ),
        "chars-logreg": lambda: make_pipeline(
            TfidfVectorizer(**characters, sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
        ),
    }[preset]()


def compare(preset: str, texts: list[str], labels: list[str], others: list[str], folder: Path) -> None:
    pipeline = theirs(preset).fit(texts, labels)
    ours = TextClassifier.fit(texts, labels, preset)
    assert ours.labels == list(pipeline.classes_)
    probabilities = ours.probabilities(others)
    assert np.abs(probabilities - pipeline.predict_proba(others)).max() < 1e-12
    assert [prediction.label for prediction in ours.predict(others)] == list(pipeline.predict(others))
    ours.save(folder)
    assert np.array_equal(TextClassifier.open(folder).probabilities(others), probabilities)


@pytest.mark.parametrize("names", [("sky", "cat"), ("sky", "cat", "money")])
@pytest.mark.parametrize("preset", PRESETS)
def test_written_texts_get_the_predictions_of_scikit_learn(preset: str, names: tuple, tmp_path: Path) -> None:
    texts, labels = written(names)
    compare(preset, texts, labels, [*texts, "", "nothing known xyz", "The GREY sky sat; in bank", "a"], tmp_path)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("file", ["sms_spam/SMSSpamCollection.tsv", "snli/dev.csv"])
def test_real_texts_get_the_predictions_of_scikit_learn(preset: str, file: str, tmp_path: Path) -> None:
    path = SHARED / file
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with path.open(encoding="utf-8", newline="") as source:
        if path.suffix == ".tsv":
            pairs = [tuple(line.rstrip("\n").split("\t")) for line in source]
        else:
            pairs = [(row["label"], f"{row['premise']} {row['hypothesis']}") for row in csv.DictReader(source)]
    labels, texts = [label for label, _ in pairs], [text for _, text in pairs]
    size = 100 if path.suffix == ".csv" and preset == "chars-logreg" else 500  # 500 would take half a minute
    compare(preset, texts[:size], labels[:size], texts[size : 2 * size], tmp_path)


@settings(max_examples=60)
@given(
    text=st.text(st.characters(codec="utf-8"), max_size=50) | st.text("ab '1_\n\u00a0", max_size=30),
    low=st.integers(1, 3),
    longer=st.integers(0, 3),
    analyzer=st.sampled_from(["word", "char_wb"]),
)
def test_ngrams_are_those_of_scikit_learn(text: str, low: int, longer: int, analyzer: str) -> None:
    chosen = TfidfSettings(analyzer=analyzer, ngram_range=(low, low + longer))
    analyze = CountVectorizer(analyzer=analyzer, ngram_range=(low, low + longer), lowercase=False).build_analyzer()
    assert sorted(ngrams(text, chosen)) == sorted(analyze(text))


def test_cleaning_is_part_of_the_model(tmp_path: Path) -> None:
    texts, labels = written()
    chosen = settings_of("tfidf-nb", {"cleaning": "html,contractions,case,stop-words"})
    model = TextClassifier.fit([f"<p>{text}</p>" for text in texts], labels, chosen)
    assert not {"the", "is", "not"} & set(model.vocabulary)
    plain = TextClassifier.open(model.save(tmp_path)).probabilities(texts)
    assert np.array_equal(plain, model.probabilities([f"<b>{text}</b>" for text in texts]))


def test_the_heaviest_words_are_those_of_the_label() -> None:
    texts, labels = written()
    for preset in ("tfidf-nb", "tfidf-logreg", "tfidf-svm"):
        words = TextClassifier.fit(texts, labels, preset).heaviest_words(3)
        assert words["cat"][0][0] == "cat"
        assert [weight for _, weight in words["money"]] == sorted((w for _, w in words["money"]), reverse=True)
    two = TextClassifier.fit(*written(("sky", "cat")), "tfidf-logreg").heaviest_words(1)
    assert [two[label][0][0] for label in ("cat", "sky")] == ["cat", "sky"]
    assert TextClassifier.fit(texts, labels, "majority").heaviest_words() == {}


def test_a_label_with_one_text_is_learned_and_said() -> None:
    texts, labels = written()
    for preset in PRESETS:
        model = TextClassifier.fit([*texts, "rare words"], [*labels, "rare"], preset)
        assert model.probabilities(texts).shape == (len(texts), 4)
        assert np.allclose(model.probabilities(texts).sum(axis=1), 1)
        assert any("one of rare" in note for note in model.notes) == (preset == "tfidf-svm")


@pytest.mark.parametrize(
    ("texts", "labels", "preset", "fault"),
    [
        ([], [], "majority", "no text"),
        (["a b", "c d"], ["x", "x"], "bow-nb", "nothing to learn"),
        (["aa", "bb"], ["x"], "bow-nb", "2 texts and 1 labels"),
        (["a", "!"], ["x", "y"], "bow-nb", "no n-gram"),
        ("one text", ["x"], "bow-nb", "cannot be used here"),
        (["aa", "bb"], ["x", 1], "bow-nb", "cannot be used here"),
        (["aa"], ["x"], "tfidf-logrex", "did you mean tfidf-logreg"),
    ],
)
def test_what_cannot_be_learned_from(texts: Any, labels: Any, preset: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        TextClassifier.fit(texts, labels, preset)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"ngram_range": "2,1"}, "shortest"),
        ({"cleaning": "case,htm"}, "did you mean html"),
        ({"alpha": 2}, "does not use it"),
        ({"C": 0}, "greater than 0"),
        ({"ngram_rage": 2}, "did you mean ngram_range"),
    ],
)
def test_settings_are_checked(changes: dict, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        settings_of("tfidf-logreg", changes)
    assert settings_of("tfidf_logreg", {"ngram_range": "1,3", "cleaning": []}).ngram_range == (1, 3)


def damage(folder: Path, what: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    arrays = load_file(folder / "model.safetensors")
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    match what:
        case "no config":
            return (folder / "config.json").unlink()
        case "no vocabulary":
            return (folder / "vocabulary.json").unlink()
        case "torn weights":
            return (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
        case "another type":
            config["model_type"] = "bert"
        case "labels":
            config["labels"] = [1, 2, 3]
        case "no labels":
            del config["labels"]
        case "a label more":
            config["labels"].append("more")
        case "link":
            config["link"] = "linear"
        case "settings":
            config["settings"]["analyzer"] = "syllable"
        case "a word less":
            vocabulary.pop()
        case "a word twice":
            vocabulary[0] = vocabulary[1]
        case "no idf":
            del arrays["idf"]
        case "float32":
            arrays["weight"] = arrays["weight"].astype(np.float32)
        case "no numbers":
            arrays["bias"][0] = np.nan
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    save_file(arrays, folder / "model.safetensors")
    return None


@pytest.mark.parametrize(
    "what",
    [
        "no config",
        "no vocabulary",
        "torn weights",
        "another type",
        "labels",
        "no labels",
        "a label more",
        "link",
        "settings",
        "a word less",
        "a word twice",
        "no idf",
        "float32",
        "no numbers",
    ],
)
def test_a_damaged_folder_is_refused(what: str, tmp_path: Path) -> None:
    TextClassifier.fit(*written(), "tfidf-logreg").save(tmp_path)
    damage(tmp_path, what)
    with pytest.raises(InputError) as raised:
        TextClassifier.open(tmp_path)
    assert str(tmp_path) in raised.value.place
    assert raised.value.hint


def test_idf_is_as_the_page_on_history_says(tmp_path: Path) -> None:
    texts = ["every one here", "every two here", "every two more", "every last one"]
    TextClassifier.fit(texts, ["x", "y", "x", "y"], "tfidf-nb").save(tmp_path)
    words = json.loads((tmp_path / "vocabulary.json").read_text())
    idf = dict(zip(words, load_file(tmp_path / "model.safetensors")["idf"].tolist(), strict=True))
    for word in words:
        df = sum(word in text.split() for text in texts)
        assert idf[word] == pytest.approx(np.log((1 + 4) / (1 + df)) + 1)
    assert idf["every"] == 1.0


def test_the_page_on_history_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    page = (Path(__file__).parents[2] / "docs" / "history.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "TextClassifier" in block)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "good {'bad': [('dull'," in capsys.readouterr().out


def test_nothing_is_pickled(tmp_path: Path) -> None:
    TextClassifier.fit(*written(), "tfidf-svm").save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "vocabulary.json"]
