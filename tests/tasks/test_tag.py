"""Token classification: alignment of words and tokens, training, and what transformers and peft make of the result."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import save_questions
from tiny_presets import sentences
from tiny_tasks import bert_like, characters, model, roberta_like, t5_like

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.data.word_pieces import Words, pieces_of
from lmworks.evaluate.entities import entity_figures
from lmworks.families.bert import BERT
from lmworks.model.head_requests import TOKENS, HeadRequest
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.tag import Tag
from lmworks.text import corpus
from lmworks.text.rows import DataSettings
from lmworks.text.tokenizer import Tokenizer

LABELS = ["O", "B-animal", "B-thing", "I-thing"]
TRAIN = {
    "steps": 120, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32", "threads": 1, "warmup": 0,
    "evaluate_every": 30,
}  # fmt: skip
ENCODER, DECODER, BOTH = "bert-mini", "llama-1m", "tinyt5"
EVERY = [ENCODER, DECODER, BOTH]
TAGS = {"cat": "B-animal", "dog": "B-animal", "red": "B-thing", "box": "I-thing", "moon": "B-thing"}


def tagged_rows(count: int) -> list[dict[str, Any]]:
    rows = []
    for text in sentences(count):
        tokens = [*text.removesuffix(".").split(), "."]
        rows.append({"tokens": tokens, "tags": [TAGS.get(token, "O") for token in tokens]})
    return rows


# Words and tokens


@pytest.mark.parametrize("tokenizer", [bert_like(), roberta_like(), t5_like(), characters()])
def test_each_word_has_the_token_in_which_it_begins(tokenizer: Tokenizer) -> None:
    words = Words.of_text("The sky isn't blue (today). Who are you?")
    (pieces,) = pieces_of(tokenizer, [words])
    assert pieces.ids.tolist() == tokenizer.encode(words.text)
    assert (pieces.firsts >= 0).all()
    encoding = tokenizer.core.encode(words.text, add_special_tokens=False)
    for first, token, start in zip(pieces.firsts.tolist(), words.tokens, words.starts, strict=True):
        begin, end = encoding.offsets[first]
        assert begin < start + len(token)
        assert end > start


def test_words_agree_with_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = bert_like()
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.core)
    tokens = ["The", "unbelievably", "blue", "sky", ",", "isn't", "it"]
    numbers = theirs(tokens, is_split_into_words=True, add_special_tokens=False).word_ids()
    expected = [numbers.index(word) for word in range(len(tokens))]
    table = corpus.read([{"tokens": tokens, "tags": ["O"] * len(tokens)}])
    row = table.rows[0].values
    (pieces,) = pieces_of(tokenizer, [Words(row["text"], row["starts"], row["tokens"])])
    assert pieces.firsts.tolist() == expected


def tiny_tagger(context: int = 64) -> Any:
    config = model("encoder", vocab_size=90, max_position_embeddings=context)
    return BERT.with_head(config, HeadRequest(TOKENS, len(LABELS), "single_label", tuple(LABELS)))


def test_the_first_token_carries_the_label_and_no_other_does() -> None:
    task = Tag(TaskSettings(name="tag"), bert_like(), tiny_tagger())
    table = corpus.read([{"tokens": ["unbelievably", "cat", "red", "box"], "tags": LABELS}])
    (example,) = task.examples(table, DataSettings(), 64)
    labels = example.labels[TOKENS]
    tokens = [task.tokenizer.piece(token) for token in example.ids.tolist()]
    assert tokens[0] == "[CLS]"
    assert tokens[-1] == "[SEP]"
    assert labels.classes.tolist() == [0, 1, 2, 3]
    assert not any(tokens[place].startswith("##") for place in labels.places.tolist())
    assert len(tokens) - 2 > 4  # some word has several tokens


def test_words_of_one_token_share_its_tag() -> None:
    words = Words("a.b", [0, 1, 2], ["a", ".", "b"])
    from lmworks.data.word_pieces import Pieces, first_pieces
    from lmworks.evaluate.tagging import tags_of

    firsts = first_pieces(words, [(0, 2), (2, 3)])
    assert firsts.tolist() == [0, 0, 1]
    pieces = Pieces(np.array([5, 6], dtype=np.int32), firsts)
    assert pieces.leads.tolist() == [True, False, True]
    head = tiny_tagger().head(TOKENS)
    logits = np.array([[0, 0, 9, 0], [9, 0, 0, 0]], dtype=np.float32)
    assert tags_of(logits, pieces, head).tags == ["B-thing", "I-thing", "O"]
    assert tags_of(logits[:1], pieces, head).tags == ["B-thing", "I-thing", "O"]  # the last was cut off


def test_long_sentences_are_cut_counted_or_refused() -> None:
    task = Tag(TaskSettings(name="tag"), bert_like(), tiny_tagger(12))
    long = {"tokens": ["a", "cat"] * 20, "tags": ["O", "B-animal"] * 20}
    table = corpus.read([long, {"tokens": ["red", "box"], "tags": ["B-thing", "I-thing"]}])
    examples = task.examples(table, DataSettings(), 12)
    assert (examples.report.truncated, len(examples.items[0])) == (1, 12)
    assert examples.items[0].labels[TOKENS].places.max() < 11
    assert len(task.examples(table, DataSettings(on_long="skip"), 12)) == 1
    with pytest.raises(InputError, match="more than fit"):
        task.examples(table, DataSettings(on_long="stop"), 12)
    other = corpus.read([{"tokens": ["a"], "tags": ["B-else"]}])
    with pytest.raises(InputError, match="'B-else' is not one of the model's labels"):
        task.examples(other, DataSettings(), 12)


# Figures


IOB_TAGS = st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"])


@given(st.lists(st.lists(st.tuples(IOB_TAGS, IOB_TAGS), min_size=1, max_size=12), min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
@pytest.mark.filterwarnings("ignore")
def test_figures_are_those_of_seqeval(rows: list[list[tuple[str, str]]]) -> None:
    theirs = pytest.importorskip("seqeval.metrics")
    scheme = pytest.importorskip("seqeval.scheme")
    right, predicted = ([[pair[side] for pair in row] for row in rows] for side in (0, 1))
    figures = entity_figures(right, predicted)
    report = theirs.classification_report(right, predicted, output_dict=True, zero_division=0)
    if not figures["types"]:
        assert figures["f1"] == 0
        return
    assert figures["precision"] == pytest.approx(report["micro avg"]["precision"])
    assert figures["recall"] == pytest.approx(report["micro avg"]["recall"])
    assert figures["f1"] == pytest.approx(report["micro avg"]["f1-score"])
    assert figures["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert figures["accuracy"] == pytest.approx(theirs.accuracy_score(right, predicted))
    for kind, scores in figures["types"].items():
        of_kind = [report[kind][name] for name in ("precision", "recall", "f1-score", "support")]
        assert [scores[name] for name in ("precision", "recall", "f1", "expected")] == pytest.approx(of_kind)
    strict = theirs.f1_score(right, predicted, mode="strict", scheme=scheme.IOB2, zero_division=0)
    assert figures["strict_f1"] == pytest.approx(strict)
    rows_f1 = sum(figures["row_right"]) / sum(figures["row_entities"])
    assert rows_f1 == pytest.approx(figures["f1"])


# Training, and other libraries


def tuned(model_folder: str, folder: Path, method: str) -> Any:
    data = {"source": str(save_questions(folder / "rows.jsonl", tagged_rows(120))), "held_out": 30}
    return lmworks.tune(model_folder, data, method=method, out=folder / "run", train=TRAIN, evaluate={"samples": 2})


@pytest.fixture(scope="module", name="runs")
def _runs(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {preset: tuned(models[preset], tmp_path_factory.mktemp(preset), "full") for preset in EVERY}


@pytest.mark.parametrize("preset", EVERY)
def test_a_run_learns_and_says_what_it_found(runs: dict[str, Any], preset: str) -> None:
    run = runs[preset]
    before, after = (
        next(event for event in RunFolder(run.folder).events("evaluation") if event["when"] == when)
        for when in ("before", "after")
    )
    assert before["name"] == "commonest tag of each word"
    assert after["entities"]["f1"] > 0.9
    assert set(after["entities"]["types"]) == {"animal", "thing"}
    headline = run.card["measures"][0]
    assert headline["key"] == "entity_f1"
    assert headline["after"]["interval"] is not None
    assert headline["change"]["interval"] is not None
    assert run.card["entities"]["types"]["animal"]["expected"] > 0
    text = "The cat likes a red box and the moon."
    (found,) = run.model.tag([text])
    assert {text[entity.start : entity.end] for entity in found} <= {"cat", "red box", "moon", "red", "box"}
    assert all(text[entity.start : entity.end] == entity.text for entity in found)
    assert run.model.labels == LABELS


@pytest.mark.parametrize("preset", EVERY)
def test_pipelines_of_transformers_give_our_labels(runs: dict[str, Any], preset: str) -> None:
    transformers = pytest.importorskip("transformers")
    run = runs[preset]
    pipeline = transformers.pipeline("token-classification", str(run.folder / "final"), device="cpu", ignore_labels=[])
    for text in sentences(3):
        (tagged,) = run.model.tag_words([text])
        theirs = {entry["start"]: entry for entry in pipeline(text)}
        for number, (start, tag) in enumerate(zip(tagged.words.starts, tagged.tags, strict=True)):
            entry = theirs.get(start) or theirs[start - 1]  # byte-level tokens begin with their space
            assert entry["entity"] == tag
            whole = next(
                (e for e in tagged.entities if e.start == start and e.text == tagged.words.tokens[number]), None
            )
            if whole is not None:
                assert whole.probability == pytest.approx(float(entry["score"]), abs=1e-4)


@pytest.mark.parametrize("preset", EVERY)
def test_peft_opens_the_adapter_with_its_head(models: dict[str, str], preset: str, tmp_path: Path) -> None:
    import torch

    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    run = tuned(models[preset], tmp_path, "lora")
    final = run.folder / "final"
    assert json.loads((final / "adapter_config.json").read_text())["task_type"] == "TOKEN_CLS"
    kind = transformers.AutoModelForTokenClassification
    base = kind.from_pretrained(models[preset], num_labels=len(LABELS), dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, final).eval()
    opened = lmworks.load(str(run.folder))
    text = sentences(1)[0]
    ids = torch.tensor([opened.tokenizer.encode(text, special=True)])
    with torch.no_grad():
        labels = [LABELS[number] for number in theirs(ids).logits[0].argmax(-1).tolist()]
    (tagged,) = opened.tag_words([text])
    (pieces,) = pieces_of(opened.tokenizer, [tagged.words])
    opening = len(opened.tokenizer.opening)
    assert tagged.tags == [labels[first + opening] for first in pieces.firsts.tolist()]
    merged = lmworks.load(opened.save(tmp_path / "merged"))
    assert merged.tag_words([text])[0].tags == tagged.tags


def test_what_transformers_wrote_opens_here(models: dict[str, str], tmp_path: Path) -> None:
    import torch

    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(models[ENCODER], id2label=names).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    lmworks.load(models[ENCODER]).tokenizer.save(tmp_path / "theirs")
    opened = lmworks.load(tmp_path / "theirs")
    text = "The cat likes a red box."
    (tagged,) = opened.tag_words([text])
    with torch.no_grad():
        best = theirs(torch.tensor([opened.tokenizer.encode(text, special=True)])).logits[0].argmax(-1).tolist()
    (pieces,) = pieces_of(opened.tokenizer, [tagged.words])
    assert tagged.tags == [LABELS[best[first + len(opened.tokenizer.opening)]] for first in pieces.firsts.tolist()]


def test_long_texts_are_tagged_in_windows_and_tokens_stay_tokens(runs: dict[str, Any]) -> None:
    model = runs[ENCODER].model
    text = " ".join(sentences(20))
    (tagged,) = model.tag_words([text])
    assert len(model.tokenizer.encode(text)) > model.context
    last = tagged.words.starts[-1]
    right = [TAGS.get(token, "O") for token in tagged.words.tokens]
    assert np.mean([one == other for one, other in zip(tagged.tags, right, strict=True)]) > 0.8
    assert max(entity.start for entity in tagged.entities) > 0.8 * last
    tokens = ["The", "cat", "saw", "New York", "."]
    (given,) = model.tag_words([tokens])
    assert given.words.tokens == tokens
    with pytest.raises(InputError, match="neither a text nor a list of tokens"):
        model.tag([["a", ""]])
    with pytest.raises(InputError, match="a single text"):
        model.tag("a text")
    assert model.tag(["", "  "]) == [[], []]


def test_models_without_such_a_head_are_refused(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no head that tags words"):
        lmworks.load(models[DECODER]).tag(["a text"])
    with pytest.raises(InputError, match="has no class for token classification"):
        lmworks.tune(models["bart-base"], tagged_rows(20), out=tmp_path / "run", train=TRAIN)


def test_tags_of_single_words_are_learned_too(models: dict[str, str], tmp_path: Path) -> None:
    dice = random.Random(0)
    kinds = {"The": "DET", "cat": "NOUN", "saw": "VERB", ".": "PUNCT"}
    rows = [{"tokens": (tokens := dice.choices(list(kinds), k=6)), "pos_tags": [kinds[t] for t in tokens]}
            for _ in range(60)]  # fmt: skip
    run = lmworks.tune(models[ENCODER], rows, method="full", out=tmp_path / "run", train=TRAIN)
    after = RunFolder(run.folder).events("evaluation")[-1]["entities"]
    assert after["scheme"] == ""
    assert after["f1"] == pytest.approx(after["accuracy"])
    (found,) = run.model.tag([["The", "cat", "saw", "."]])
    assert [entity.label for entity in found] == ["DET", "NOUN", "VERB", "PUNCT"]


# The command


def test_predict_tags_the_rows_of_a_file(
    runs: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lmworks.commands.main import main

    run = str(runs[ENCODER].folder)
    rows = tagged_rows(8)
    lines = "".join("\n".join(map("\t".join, zip(row["tokens"], row["tags"], strict=True))) + "\n\n" for row in rows)
    (tmp_path / "rows.conll").write_text(lines)
    assert main(["predict", run, str(tmp_path / "rows.conll"), "--out", str(tmp_path / "out.conll")]) == 0
    shown = capsys.readouterr().out
    assert "rows.conll:1: The" in shown
    assert "entity F1 " in shown
    written = (tmp_path / "out.conll").read_text().splitlines()
    assert [line.split("\t")[:2] for line in written] == [line.split("\t") for line in lines.splitlines()]
    predicted = runs[ENCODER].model.tag_words([row["tokens"] for row in rows])
    assert [line.split("\t")[2] for line in written if line] == [tag for found in predicted for tag in found.tags]
    (tmp_path / "words.conll").write_text("The\ncat\n\nA\ndog\n")
    assert main(["predict", run, str(tmp_path / "words.conll"), "--out", str(tmp_path / "out.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "F1" not in shown
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["tokens"] == ["The", "cat"]
    assert len(first["prediction"]) == 2
    (tmp_path / "text.txt").write_text("The cat saw\nA red box.\n")
    assert main(["predict", run, str(tmp_path / "text.txt"), "--out", str(tmp_path / "texts.jsonl")]) == 0
    for row in map(json.loads, (tmp_path / "texts.jsonl").read_text().splitlines()):
        for entity in row["predicted_entities"]:
            assert row["text"][entity["start"] : entity["end"]] == entity["text"]
    assert main(["predict", run, str(tmp_path / "text.txt"), "--out", str(tmp_path / "texts.conll")]) == 0
    lines = [line.split("\t") for line in (tmp_path / "texts.conll").read_text().splitlines()]
    assert [line[0] for line in lines] == ["The", "cat", "saw", "", "A", "red", "box", ".", ""]
    texts = runs[ENCODER].model.tag_words(["The cat saw", "A red box."])
    assert [line[1] for line in lines if line[1:]] == [tag for found in texts for tag in found.tags]


def test_predict_names_the_row_of_an_unknown_type(
    runs: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lmworks.commands.main import main

    (tmp_path / "rows.conll").write_text("a O\n\nb B-planet\n")
    assert main(["predict", str(runs[ENCODER].folder), str(tmp_path / "rows.conll")]) != 0
    said = capsys.readouterr().err
    assert "does not know 'B-planet'" in said
    assert "rows.conll:3" in said


def test_data_show_marks_the_tokens_that_carry_tags(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lmworks.commands.main import main

    (tmp_path / "rows.conll").write_text("unbelievably O\ncat B-animal\n")
    assert main(["data", "show", models[ENCODER], str(tmp_path / "rows.conll")]) == 0
    shown = capsys.readouterr().out
    assert "2 with loss" in shown
    assert "/B-animal]" in shown
    assert "/O]" in shown
    assert "task tag" in shown
    assert main(["data", "show", models[ENCODER], str(tmp_path / "rows.conll"), "--ids"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("B-animal" in line and "loss" in line for line in lines) == 1


def test_rows_without_tags_are_not_trained_on(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the rows have no tags"):
        lmworks.tune(models[ENCODER], [{"tokens": ["a", "b"]}] * 10, out=tmp_path / "run", train=TRAIN)
