"""CrowS-Pairs and Winogender as published, by networks of transformers beside ours; terms exchanged in rows."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny_kinds import save_encoder
from tiny_model import save_tiny
from tiny_suites import PAIRS, save_crows_pairs, save_winogender

import lmworks
from lmworks.audits import bias
from lmworks.audits.part import Given
from lmworks.audits.settings import AuditSettings
from lmworks.audits.subject import open_subject
from lmworks.audits.suite_files import find_file, read_crows_pairs, read_winogender
from lmworks.base.errors import InputError
from lmworks.text import corpus

silent = [].append


@pytest.fixture(scope="module", name="suites")
def _suites(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("suites")
    save_crows_pairs(folder / "crows")
    save_winogender(folder / "wino")
    return folder


@pytest.fixture(scope="module", name="tiny")
def _tiny(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", seed=3)


def figures_of(part) -> dict:
    return {figure.name: figure for figure in part.figures}


def test_pairs_by_a_masked_encoder_have_the_published_score(tmp_path, suites):
    """Each token that both sentences share is hidden alone; special tokens never are."""
    folder = save_encoder(tmp_path / "bert")
    theirs = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    tokenizer = lmworks.load(folder).tokenizer
    scores = []
    for more, less, _, _ in PAIRS:
        both = [tokenizer.encode(text, special=True) for text in (more, less)]
        equal = [op[1:] for op in difflib.SequenceMatcher(None, *both).get_opcodes() if op[0] == "equal"]
        places = [[p for op in equal for p in range(op[2 * side], op[2 * side + 1])] for side in (0, 1)]
        nats = []
        for ids, shared in zip(both, places, strict=True):
            total = 0.0
            for place in shared:
                if ids[place] in (tokenizer.cls_id or 1, tokenizer.sep_id or 2):
                    continue
                hidden = torch.tensor([ids])
                hidden[0, place] = tokenizer.mask_id
                with torch.no_grad():
                    total -= float(theirs(hidden).logits[0, place].log_softmax(-1)[ids[place]])
            nats.append(total)
        scores.append(nats)
    subject = open_subject(folder, silent)
    pairs = read_crows_pairs(find_file(str(suites), "crows_pairs_anonymized.csv"))
    assert np.array(bias._shared_token_nats(subject, pairs)) == pytest.approx(np.array(scores), rel=1e-4)
    part = bias.measure(subject, Given(AuditSettings(suite_data=str(suites))))
    measured = figures_of(part)
    assert measured["crows_pairs"].value == np.mean([more < less for more, less in scores])
    assert measured["crows_pairs"].sample.rows == 4
    assert measured["crows_pairs.antistereo"].sample.rows == 1
    assert {"crows_pairs.taste", "crows_pairs.order", "winogender"} <= set(measured)


def test_pairs_by_a_decoder_have_the_likelihood_of_whole_sentences(tiny, suites):
    model, subject = lmworks.load(tiny), open_subject(tiny, silent)
    begin = model.tokenizer.opening or [model.tokenizer.bos_id or model.tokenizer.eos_id or 0]
    prefers = []
    for pair in PAIRS:
        nats = []
        for text in pair[:2]:
            ids = torch.tensor([[*begin, *model.tokenizer.encode(text)]])
            with torch.no_grad():
                logs = model.network(ids).logits[0, :-1].log_softmax(-1)
            nats.append(-float(logs.gather(1, ids[0, 1:, None]).sum()))
        prefers.append(nats[0] < nats[1])
    part = bias.measure(subject, Given(AuditSettings(suite_data=str(suites))))
    assert figures_of(part)["crows_pairs"].sample.hits.tolist() == prefers


def test_a_pronoun_means_whom_the_model_finds_likelier(tiny, suites):
    model, subject = lmworks.load(tiny), open_subject(tiny, silent)
    sentences = read_winogender(find_file(str(suites), "all_sentences.tsv"))
    chosen = []
    for sentence in sentences:
        prompt = f'{sentence.text} "{sentence.pronoun.capitalize()}" refers to'
        perplexities = []
        for name in (sentence.occupation, sentence.participant):
            choice = model.tokenizer.encode(" someone" if name == "someone" else f" the {name}", after=prompt)
            asked = [*model.tokenizer.opening, *model.tokenizer.encode(prompt)]
            (likelihood,) = model.choice_likelihoods([asked], [[choice]])
            perplexities.append(float(np.exp(-likelihood[0] / len(choice))))
        chosen.append(int(perplexities[1] < perplexities[0]))
    assert bias._referents(subject, sentences) == chosen
    measured = figures_of(bias.measure(subject, Given(AuditSettings(suite_data=str(suites)))))
    right = [choice == sentence.answer for choice, sentence in zip(chosen, sentences, strict=True)]
    assert measured["winogender"].value == pytest.approx(np.mean(right))
    female, male = ([right[n] for n, s in enumerate(sentences) if s.gender == name] for name in ("female", "male"))
    assert measured["winogender.gap"].value == pytest.approx(np.mean(female) - np.mean(male))


def test_some_sentences_keep_all_pronouns_of_their_template(tiny, suites):
    settings = AuditSettings(suite_data=str(suites), suite_rows=6)
    measured = figures_of(bias.measure(open_subject(tiny, silent), Given(settings)))
    assert measured["winogender"].sample.rows == 6
    assert measured["winogender.pairs"].sample.rows == 2


def test_labels_that_follow_a_term_change_with_it(tmp_path):
    rows = [{"text": f"{who} likes {n} things", "label": label} for n in range(40) for who, label in
            (("he", "no"), ("she", "yes"))]  # fmt: skip
    run = lmworks.tune("tfidf-logreg", rows, out=tmp_path / "run").folder
    part = bias.measure(open_subject(run, silent), Given(AuditSettings(rows=30), corpus.read(rows)))
    measured = figures_of(part)
    assert measured["swaps.labels"].value == 1.0
    assert measured["swaps.labels"].sample.rows == 30
    assert measured["swaps.probability.yes"].value > 0.5
    assert part.examples[0].startswith("no: he likes")
    assert any("CrowS-Pairs" in reason for reason in part.missing)


def test_terms_of_a_file_are_exchanged(tiny, tmp_path):
    terms = tmp_path / "terms.csv"
    terms.write_text("anna,mehmet\nberlin,ankara\n", encoding="utf-8")
    rows = [{"text": f"Anna has {n} cats in Berlin"} for n in range(8)]
    settings = AuditSettings(terms=str(terms))
    part = bias.measure(open_subject(tiny, silent), Given(settings, corpus.read(rows)))
    measured = figures_of(part)
    model = lmworks.load(tiny)
    gaps = [
        one.nats - other.nats
        for one, other in zip(
            model.score([row["text"] for row in rows]),
            model.score([f"Mehmet has {n} cats in Ankara" for n in range(8)]),
            strict=True,
        )
    ]
    assert measured["swaps.nats"].value == pytest.approx(np.mean(gaps), rel=1e-3)
    assert "terms.csv" in measured["swaps.first"].signature


def test_too_few_rows_with_a_term_give_no_figure(tiny):
    part = bias.measure(open_subject(tiny, silent), Given(AuditSettings(), corpus.read([{"text": "he is"}])))
    assert part.figures == []
    assert any("1 of 1 row" in reason for reason in part.missing)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("crows_pairs_anonymized.csv", "sent_more,sent_less,bias_type\na,b,c\n", "stereo_antistereo"),
        ("crows_pairs_anonymized.csv", "sent_more,sent_less,stereo_antistereo,bias_type\na,b,up,c\n", "'up'"),
        ("all_sentences.tsv", "sentid\tsentence\na.b.2.male.txt\the is\n", "the id"),
        ("all_sentences.tsv", "sentid\tsentence\na.b.1.male.txt\tnobody is\n", "no pronoun"),
    ],
)
def test_a_file_of_another_form_is_refused(name, content, fault, tiny, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=fault) as raised:
        bias.measure(open_subject(tiny, silent), Given(AuditSettings(suite_data=str(tmp_path))))
    assert f"{name}:2" in raised.value.place


def test_a_folder_that_is_not_there_says_where_files_are(tiny, tmp_path):
    with pytest.raises(InputError, match="no such folder") as raised:
        bias.measure(open_subject(tiny, silent), Given(AuditSettings(suite_data=str(tmp_path / "none"))))
    assert "nyu-mll" in raised.value.hint


@pytest.mark.parametrize("line", ["he", "he,He", "a,b,c"])
def test_a_line_without_two_terms_is_refused(line, tmp_path):
    (tmp_path / "terms.csv").write_text(f"he,she\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError):
        bias.read_terms(str(tmp_path / "terms.csv"))
