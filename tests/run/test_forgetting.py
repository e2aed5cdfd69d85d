"""What a model forgot: the same figures of base and result; with the base's head on the tuned backbone where it lost
its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_model import COMMON, QUESTIONS, save_tiny, settings
from tiny_presets import save_text, sentences, small

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.settings import merge
from lmworks.evaluate import metrics
from lmworks.evaluate.pseudo_likelihood import pseudo_scores
from lmworks.families.folder import save_folder
from lmworks.model.head_views import with_language_head
from lmworks.run.forgetting import base_of_run, choice_questions, measure_forgetting, retained, with_base_head
from lmworks.text.multiple_choice import ChoiceQuestion

LABELLED = [{"text": text, "label": "cat" if "cat" in text else "other"} for text in sentences(60)]
ASKED = [
    ChoiceQuestion(text[:9], (text[9:20], text[20:24] or "!", " zz"), 0, str(n)) for n, text in enumerate(sentences(8))
]


def classify(model: Path, out: Path, method: str, steps: int = 3, rate: float = 1e-3) -> Path:
    options = settings("train.batch_size=4 train.threads=1 train.precision=float32 data.held_out=8")
    options = merge(options, {"train": {"steps": steps, "learning_rate": rate}, "task": {"name": "classify"}})
    return lmworks.tune(str(model), LABELLED, method=method, out=out, **options).folder


@pytest.fixture(scope="module", name="tiny")
def _tiny(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module", name="bert")
def _bert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    values = merge(small("tinybert"), {"model": {"max_position_embeddings": 64}})
    data = {"source": str(save_text(folder / "text.txt")), "document": "paragraph", "held_out": 4}
    run = lmworks.pretrain("tinybert", data, out=folder / "run", **values).folder
    lmworks.load(run).save(folder / "bert")
    return folder / "bert"


@pytest.fixture(name="general")
def _general(tmp_path) -> Path:
    path = tmp_path / "general.txt"
    path.write_text("\n".join(" ".join(sentences(4, seed)) + "\n" for seed in range(40)))
    return path


def test_an_instructed_decoder_is_asked_as_it_is(tiny, general, tmp_path):
    run = lmworks.tune(str(tiny), QUESTIONS, out=tmp_path / "run", **settings(COMMON + " train.steps=4")).folder
    result = measure_forgetting(run, general, 4000, ASKED)
    assert result.base == str(tiny)
    assert (result.text.before.figure, result.text.before.subject) == ("bits per byte", "general.txt")
    assert result.text.difference == result.text.after.value - result.text.before.value
    assert result.choices.before.denominators == [1.0] * len(ASKED)
    json.dumps(dataclasses.asdict(result))


def test_the_change_is_the_report_cards(tiny, general, tmp_path):
    """The run's own evaluation of the same text gives the same figures."""
    values = settings(f"{COMMON} train.steps=4 evaluate.general={general}") | {}
    values["evaluate"]["general_bytes"] = 3000
    run = lmworks.tune(str(tiny), QUESTIONS, out=tmp_path / "run", **values)
    measure = next(measure for measure in run.card["measures"] if measure["key"] == "general_bits")
    result = measure_forgetting(run.folder, general, 3000, ASKED).text
    assert result.before.value == pytest.approx(measure["before"]["value"], rel=1e-5)
    assert result.after.value == pytest.approx(measure["after"]["value"], rel=1e-5)


@pytest.mark.parametrize("method", ["lora", "full", "ia3", "bottleneck"])
def test_a_decoder_that_got_a_head_is_read_by_its_bases_language_head(method, tiny, general, tmp_path):
    run = classify(tiny, tmp_path / "run", method, steps=4, rate=5e-3)
    result = measure_forgetting(run, general, 2000, ASKED)
    assert result.text.before.value != result.text.after.value
    base, tuned = lmworks.load(tiny), lmworks.load(run)
    model = with_base_head(tuned, base)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        expected = base.network.head(tuned.network.hidden_states(ids))
        assert torch.equal(model.network(ids).logits, expected)
    assert not tuned.config.language_head  # as it was


def test_a_base_on_itself_has_forgotten_nothing(tiny, general, bert):
    for folder in (tiny, bert):
        base, other = lmworks.load(folder), lmworks.load(folder)
        before = retained(base, "sentences", general.read_text().split("\n\n"), ASKED)
        assert retained(with_base_head(other, base), "sentences", general.read_text().split("\n\n"), ASKED) == before


def test_the_language_head_of_a_donor_stays_its_own(tiny):
    base, other = lmworks.load(tiny).network, lmworks.load(tiny).network
    with torch.no_grad():
        other.embed_tokens.weight.mul_(2.0)
    view = with_language_head(other, base)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(view(ids).logits, base.head(other.hidden_states(ids)))
        assert not torch.equal(view(ids).logits, other(ids).logits)
    assert other.lm_head is None


def test_a_masked_encoder_that_got_a_head_is_scored_by_pseudo_likelihood(bert, general, tmp_path):
    run = classify(bert, tmp_path / "run", "lora")
    result = measure_forgetting(run, general, 1000, ASKED)
    assert result.text.before.figure == "bits per byte by pseudo-likelihood"
    base = lmworks.load(bert)
    texts = general.read_text().split("\n\n")
    assert result.text.before.numerators[0] > 0
    own = pseudo_scores(base.network, base.tokenizer, texts[:1])[0]
    assert own.bits_per_byte == pytest.approx(result.text.before.value, rel=0.3)


def test_an_encoder_without_a_language_head_is_asked_for_halves(bert, general, tmp_path):
    general.write_text("\n\n".join(" ".join(sentences(4, seed)) for seed in range(300)))
    model = lmworks.load(bert)
    config = model.config.model_copy(update={"language_head": False, "heads": (), "head_transform": False})
    model.network.config = config
    model.network.lm_head = model.network.head_transform = model.network.head_bias = model.network.pooler = None
    model.network.heads.clear()
    config = config.model_copy(update={"head_bias": False, "pooler": False})
    bare = save_folder(tmp_path / "bare", model.network, config, model.family, model.tokenizer)
    assert not lmworks.load(bare).config.language_head
    run = classify(bare, tmp_path / "run", "full", steps=4, rate=1e-2)
    result = measure_forgetting(run, general, 6000, ASKED)
    assert result.text.before.figure == "texts whose halves find each other"
    assert set(result.text.before.numerators) <= {0.0, 1.0}
    assert len(result.text.before.numerators) > 6
    assert 0 <= result.text.after.value <= 1
    rows = result.text.before.numerators, result.text.after.numerators
    expected = metrics.paired_difference(*rows)
    assert result.text.interval == pytest.approx([expected.low, expected.high], abs=1e-9)


def test_too_short_a_text_has_no_halves(bert, tmp_path):
    model = lmworks.load(bert)
    model.network.config = model.config.model_copy(update={"language_head": False})
    with pytest.raises(InputError, match="too short"):
        retained(model, "short.txt", ["a few words"], [])


def test_what_was_measured_of_the_base_serves_several_runs(tiny, general, tmp_path):
    run = classify(tiny, tmp_path / "run", "lora")
    name, texts = general.name, [text for text in general.read_text().split("\n\n") if text.strip()]
    before = retained(lmworks.load(tiny), name, texts, ASKED)
    result = measure_forgetting(run, general, 10**6, ASKED, before)
    assert result.text.before is before.text


def test_questions_come_from_a_file_or_the_documentation(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"prompt": "a", "choices": ["b", "c"], "answer": 1}) + "\n")
    assert choice_questions(path)[0].answer == 1
    assert len(choice_questions()) == 60


def test_a_model_from_nothing_has_nothing_to_forget(tmp_path):
    rows = [{"text": word * 3, "label": word} for word in ("good ", "bad ") for _ in range(20)]
    run = lmworks.tune("tfidf-logreg", rows, out=tmp_path / "run").folder
    with pytest.raises(InputError, match="nothing to forget"):
        base_of_run(run)
