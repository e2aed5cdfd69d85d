"""Tags: entities as seqeval finds them, schemes, CoNLL files, spans of characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmworks.base.errors import InputError
from lmworks.text import corpus
from lmworks.text.rows import DataSettings
from lmworks.text.tags import Scheme, entities, scheme_of, split_words, strict_entities, written

WORD_TAGS = st.sampled_from(["O", "B-a", "I-a", "E-a", "S-a", "B-b-c", "I-b-c", "B-O", "I-O"])
IOB_TAGS = st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"])


@given(st.lists(WORD_TAGS))
def test_entities_are_those_of_seqeval(tags: list[str]) -> None:
    labelling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    expected = [(kind, first, last + 1) for kind, first, last in labelling.get_entities(tags)]
    assert [tuple(span) for span in entities(tags)] == expected


@given(st.lists(IOB_TAGS, min_size=1))
def test_strict_entities_are_those_of_seqeval(tags: list[str]) -> None:
    scheme = pytest.importorskip("seqeval.scheme")
    expected = [(entity.tag, entity.start, entity.end) for entity in scheme.Tokens(tags, scheme.IOB2).entities]
    assert [tuple(span) for span in strict_entities(tags)] == expected


@given(st.lists(WORD_TAGS))
def test_tags_written_hold_the_same_entities(tags: list[str]) -> None:
    spans = entities(tags)
    again = written(spans, len(tags))
    assert entities(again) == strict_entities(again) == spans


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O B-a I-a O B-a", Scheme("IOB2")),
        ("O I-a I-a B-a O I-b", Scheme("IOB1", 0)),
        ("I-a I-a O I-b", Scheme("IOB1")),
        ("O B-a I-a O I-b I-b", Scheme("IOB2", 1)),
        ("O B-a L-a U-b", Scheme("BILOU")),
        ("O B-a I-a E-a S-b", Scheme("IOBES")),
        ("DET NOUN VERB", Scheme("")),
        ("O O", Scheme("IOB2")),
    ],
)
def test_schemes_are_told_apart(tags: str, scheme: Scheme) -> None:
    assert scheme_of([tags.split()]) == scheme


def test_words_of_texts() -> None:
    text = "Jean-Paul (of AT&T), isn't in the U.S. #today - @home!"
    words = " ".join(text[begin:end] for begin, end in split_words(text))
    assert words == "Jean-Paul ( of AT&T ) , isn't in the U.S . #today - @home !"
    assert split_words("New-Yorker", [3, 4]) == [(0, 3), (3, 4), (4, 10)]


@given(st.text(), st.sets(st.integers(0, 20)))
def test_words_hold_every_visible_character_once(text: str, borders: set[int]) -> None:
    words = split_words(text, borders)
    covered = [place for begin, end in words for place in range(begin, end)]
    assert covered == [place for place, sign in enumerate(text) if not sign.isspace()]
    assert all(not begin < border < end for begin, end in words for border in borders)


def save(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


BILOU = """-DOCSTART- -X- O

Mary NNP B-per
Ann NNP L-per
saw VBD O
Rome NNP U-loc

# a comment
#hash NN O
Bob NNP U-per
"""


@pytest.mark.parametrize("name", ["x.conll", "x.txt", "x.tsv", "x.annotated", "x"])
def test_conll_is_recognised_by_name_or_content(tmp_path: Path, name: str) -> None:
    text = BILOU.replace(" ", "\t") if name.endswith("tsv") else BILOU
    table = corpus.read(save(tmp_path / name, text.replace("#\ta\tcomment", "# a comment")))
    assert table.kind == "tags"
    assert [row.values["tokens"] for row in table.rows] == [["Mary", "Ann", "saw", "Rome"], ["#hash", "Bob"]]
    assert [row.values["tags"] for row in table.rows] == [["B-per", "I-per", "O", "B-loc"], ["O", "B-per"]]
    assert table.labels == ["O", "B-loc", "B-per", "I-per"]
    assert [row.place.rpartition(":")[2] for row in table.rows] == ["3", "9"]
    assert any("BILOU, and read as IOB2" in note for note in table.notes)


def test_columns_are_named_by_number_and_by_conllu_name(tmp_path: Path) -> None:
    path = save(tmp_path / "x.conll", BILOU)
    table = corpus.read(path, DataSettings(columns={"token": "1", "tag": "2"}))
    assert table.rows[0].values["tags"] == ["NNP", "NNP", "VBD", "NNP"]
    assert table.labels == ["NN", "NNP", "VBD"]
    with pytest.raises(InputError, match="there is no column '9'"):
        corpus.read(path, DataSettings(columns={"token": "1", "tag": "9"}))
    lines = ["# text = We go", "1-2\tWego\t_\t_\t_\t_\t_\t_\t_\t_", "1\tWe\twe\tPRON\tPRP\t_\t2\tnsubj\t_\t_",
             "2\tgo\tgo\tVERB\tVBP\t_\t0\troot\t_\t_"]  # fmt: skip
    path = save(tmp_path / "x.conllu", "\n".join(lines) + "\n\n")
    assert corpus.read(path).rows[0].values["tags"] == ["PRON", "VERB"]
    assert corpus.read(path, DataSettings(columns={"tag": "DEPREL"})).rows[0].values["tags"] == ["nsubj", "root"]
    assert corpus.read(path, DataSettings(columns={"tag": "5"})).rows[0].values["tags"] == ["PRP", "VBP"]


def test_a_text_of_plain_lines_stays_text(tmp_path: Path) -> None:
    assert corpus.read(save(tmp_path / "x.txt", "Plain lines\nof a text\n\nin two parts O\n")).kind == "text"


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ("a O\nb\n\nc O\nd O\n", 2, "1 columns where 2"),
        ("a\tO\n \tO\n\nc\tO\n", 2, "column 'tokens' is empty"),
        ("a\tO\nb\t\n\nc\tO\n", 2, "column 'tags' is empty"),
    ],
)
def test_bad_lines_stop_the_run_or_spoil_their_sentence(tmp_path: Path, text: str, line: int, fault: str) -> None:
    path = save(tmp_path / "x.conll", text)
    with pytest.raises(InputError, match=fault) as error:
        corpus.read(path)
    assert error.value.place == f"{path}:{line}"
    table = corpus.read(path, DataSettings(on_bad_row="skip"))
    assert [row.values["tokens"][0] for row in table.rows] == ["c"]
    assert len(table.skipped) == 1


def test_bytes_that_are_no_utf8_spoil_their_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.conll"
    path.write_bytes(b"a\tO\nb\xff\tO\nc\tO\n\nd\tO\n")
    with pytest.raises(InputError, match="UTF-8") as error:
        corpus.read(path)
    assert error.value.place == f"{path}:2"
    assert [row.values["tokens"] for row in corpus.read(path, DataSettings(on_bad_row="skip")).rows] == [["d"]]


def test_tags_that_continue_nothing_begin_an_entity(tmp_path: Path) -> None:
    table = corpus.read(save(tmp_path / "x.conll", "a I-x\nb O\nc B-x\nd I-y\n"))
    assert table.rows[0].values["tags"] == ["B-x", "O", "B-x", "B-y"]
    assert any(note.startswith("2 words with an I tag that continues no entity") for note in table.notes)


def test_tags_of_two_kinds_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.conll", "a B-x\nb I-x\n\nc person\n")
    with pytest.raises(InputError, match="'person' is written otherwise than 'B-x'") as error:
        corpus.read(path)
    assert error.value.place == f"{path}:4"


def test_lists_and_spans_of_json() -> None:
    (row,) = corpus.read([{"tokens": ["In", "Rome"], "ner_tags": ["O", "B-loc"]}]).rows
    assert row.values == {"tokens": ["In", "Rome"], "tags": ["O", "B-loc"], "text": "In Rome", "starts": [0, 3]}
    numbers = {"tokens": ["In", "Rome"], "ner_tags": [0, 1]}
    (row,) = corpus.read([numbers], DataSettings(label_names={"0": "O", "1": "B-loc"})).rows
    assert row.values["tags"] == ["O", "B-loc"]
    text = "Mary Ann's of New-York."
    spans = [{"start": 14, "end": 22, "label": "loc"}, {"start": 0, "end": 9, "label": "per"}]
    table = corpus.read([{"text": text, "entities": spans}, {"text": "none", "entities": []}])
    assert table.rows[0].values["tokens"] == ["Mary", "Ann", "'", "s", "of", "New-York", "."]
    assert table.rows[0].values["tags"] == ["B-per", "I-per", "I-per", "O", "O", "B-loc", "O"]
    assert table.rows[1].values["tags"] == ["O"]
    (row,) = corpus.read([{"text": text, "spans": [[0, 4, "per"]]}]).rows
    assert row.values["tags"][:2] == ["B-per", "O"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens and 1 tag"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, "'' is no token"),
        ({"tokens": ["a"], "tags": [3]}, "3 is no tag"),
        ({"tokens": ["a"], "tags": [None]}, "None is no tag"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "None is no token"),
        ({"tokens": [], "tags": []}, "there is no token"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "tokens are a str"),
        ({"text": "a b", "spans": [{"start": 0, "end": 4, "label": "x"}]}, "outside of its text of 3 characters"),
        ({"text": "a b", "spans": [{"start": 1, "end": 2, "label": "x"}]}, "holds no word"),
        ({"text": "a b", "spans": [[0, 3, "x"], [2, 3, "y"]]}, "overlap"),
        ({"text": "a b", "spans": [{"start": 0, "end": 1}]}, "label None"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_tags_are_named(tmp_path: Path, row: dict, fault: str) -> None:
    good = {"tokens": ["a"], "tags": ["O"]} if "tokens" in row else {"text": "a", "spans": [[0, 1, "x"]]}
    path = save(tmp_path / "x.jsonl", "".join(json.dumps(each) + "\n" for each in (good, row)))
    with pytest.raises(InputError, match=fault) as error:
        corpus.read(path)
    assert error.value.place == f"{path}:2"
