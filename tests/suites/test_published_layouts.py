"""Each benchmark reads the files that are published, and asks what it says."""

from __future__ import annotations

import pytest
from published_rows import PUBLISHED, Published

from lmworks.base.errors import InputError
from lmworks.suites.evaluation import prepare
from lmworks.suites.figures import check_metrics
from lmworks.suites.registry import choose, read_suite, suite_names
from lmworks.suites.settings import SuiteSettings


def zero_shots(**changes) -> SuiteSettings:
    return SuiteSettings(shots=0, **changes)


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda entry: f"{entry.benchmark}: {entry.file}")
def test_rows_become_questions(published: Published, tmp_path) -> None:
    published.write(tmp_path)
    (chosen,) = choose(published.benchmark)
    prepared = prepare(chosen, tmp_path, zero_shots())
    assert len(prepared.questions) == published.rows
    first = prepared.questions[0]
    assert first.prompts[:1] == ([published.prompt] if first.prompts else [])
    assert (first.options, first.references) == (published.options, published.references)


def test_every_benchmark_of_every_suite_is_tried_here_or_is_like_another() -> None:
    tried = {entry.benchmark for entry in PUBLISHED}
    every = {name for suite in suite_names() for name in read_suite(suite).benchmarks}
    assert every - tried == {"pud-en-fr", "pud-fr-en", "flores-en-de", "nfcorpus", "beir"}


@pytest.mark.parametrize("suite", suite_names())
def test_a_suite_names_metrics_and_benchmarks_that_there_are(suite: str) -> None:
    for chosen in choose(suite):
        check_metrics(chosen.benchmark.metrics, chosen.name)
        assert chosen.suite == suite


def test_no_two_benchmarks_have_one_name() -> None:
    names = [name for suite in suite_names() for name in read_suite(suite).benchmarks]
    assert len(names) == len(set(names))
    assert not (set(names) & set(suite_names())) - {
        name for name in suite_names() if name in read_suite(name).benchmarks
    }


def test_broad_is_ten_unlike_things() -> None:
    chosen = choose("broad")
    assert len(chosen) == 10
    assert {entry.benchmark.form for entry in chosen} == {
        "choices", "generation", "similarity", "retrieval", "entities"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "file", "text", "fault"),
    [
        ("rte", "RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n1\ta\tb\tmaybe\n", "the label 'maybe' is none of"),
        ("cola", "CoLA/dev.tsv", "gj04\t2\t\tThey ran.\n", "the label '2' is none of the benchmark's: 0, 1"),
        ("arc-easy", "arc_easy.jsonl", '{"query": "a", "choices": ["b", "c"], "gold": 2}\n', "the answer 2 is none"),
        ("arc-easy", "arc_easy.jsonl", '{"query": "a", "choices": ["b"], "gold": 0}\n', "1 option, not 2 to 26"),
        ("arc-easy", "arc_easy.jsonl", '{"query": "a", "choices": ["b", ""], "gold": 0}\n', "an empty text"),
        ("boolq", "BoolQ/val.jsonl", '{"passage": "a", "question": "b"}\n', "'label' is undefined"),
        ("wnut17", "emerging.test.annotated", "Ada\tB-planet\n\n", "the tag 'planet' is none of the benchmark's"),
        ("gsm8k", "gsm8k/test.jsonl", '{"question": "a", "answer": ""}\n', "answer is an empty text"),
        ("scitldr", "scitldr/test.jsonl", '{"source": ["a"], "target": []}\n', "has no right answer"),
        ("stsb", "STS-B/dev.tsv", "sentence1\tsentence2\tscore\na\tb\tvery\n", "'very' is no number"),
    ],
)  # fmt: skip
def test_a_row_that_is_not_the_benchmarks_is_named(name: str, file: str, text: str, fault: str, tmp_path) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (chosen,) = choose(name)
    with pytest.raises(InputError) as error:
        prepare(chosen, tmp_path, zero_shots())
    assert fault in error.value.fault
    assert error.value.place.startswith(f"{path}:")
    assert error.value.hint


def test_unlabelled_rows_of_the_hub_are_refused(tmp_path) -> None:
    Published("rte", "rte/test-0.parquet", [{"sentence1": "a", "sentence2": "b", "label": -1}], "", [], []).write(
        tmp_path
    )
    (chosen,) = choose("rte")
    with pytest.raises(InputError, match="cannot be computed"):
        prepare(chosen, tmp_path, zero_shots(split="test"))
