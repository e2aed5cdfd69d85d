"""Named data sets: what is in them, what is left out, and that they are cached whole."""

import pytest

from lmworks.text import corpus, datasets, stdlib


def test_python_help_is_cached_whole_and_split_by_module(tmp_path, monkeypatch):
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path))
    table = corpus.read("python-help")
    assert len(table) > 3000
    assert [row.values for row in corpus.read("python-help").rows] == [row.values for row in table.rows]
    assert datasets.cached_rows("python-help") == len(table)
    known = {row.values["prompt"]: row.values["completion"] for row in table.rows}
    assert known["What does os.path.join do?"] == "Join two or more pathname components, inserting '/' as needed."
    assert known["What does math.sqrt do?"] == "Return the square root of x."
    train, held = corpus.split(table)
    assert not {row.key for row in train.rows} & {row.key for row in held.rows}
    assert 50 < len(held) <= 200
    assert not {row.values["completion"] for row in train.rows} & {row.values["completion"] for row in held.rows}


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "file"))
    assert len(corpus.read("python-help")) > 3000


def test_general_text_is_not_in_python_source(tmp_path, monkeypatch):
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path))
    if not stdlib.topics():
        pytest.skip("this Python has no documentation topics")
    general = datasets.general_text()
    source = {row.values["text"] for row in corpus.read("python-source").rows}
    assert len(general) > 20
    assert not set(general) & source
    assert sum(map(len, datasets.general_text(10_000))) <= 10_000


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        ("Return the sum.  More.", None),
        ("Return the sum of all.  More of it.", "Return the sum of all."),
        (
            "Return the value\n    of this thing (e.g. a\n    number).\n\nMore.",
            "Return the value of this thing (e.g. a number).",
        ),
        ("return what it has,\n\nNext", "Return what it has."),
        ("os.path of this machine here", "os.path of this machine here."),
        ("f(x) -> y of all things", None),
        (">>> one two three four", None),
    ],
)
def test_first_sentences(doc, sentence):
    expected = sentence if sentence is None or len(sentence) >= 20 else None
    assert stdlib.first_sentence(doc) == expected


def test_review_rows_leave_the_near_zero_out():
    rows, notes = datasets.review_rows("1\t2.5\tGood film\n2\t-0.2\tA film\n3\t-3.0\tBad film\n")
    assert [row.values for row in rows] == [
        {"text": "Good film", "label": "pos", "rating": 2.5},
        {"text": "Bad film", "label": "neg", "rating": -3.0},
    ]
    assert notes[0].startswith("1 reviews")
