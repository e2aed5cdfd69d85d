"""Labels: what means the same has one name, what does not stays apart, and both are said."""

import pytest

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.text import corpus
from lmworks.text.rows import DataSettings


def read(labels, **settings):
    rows = [{"text": f"Letter {n}", "label": label} for n, label in enumerate(labels)]
    return corpus.read(rows, DataSettings(**settings))


@pytest.mark.parametrize(
    ("labels", "names", "note"),
    [
        ([3, "3", 3.0, 4, 4.0], ["3", "4"], "'3' (3 1 times, \"3\" 1 times, 3.0 1 times)"),
        ([3.0, 4.0], ["3.0", "4.0"], ""),
        ([3.0, 4.5, 3], ["3", "4.5"], "'3' (3 1 times, 3.0 1 times)"),
        (["pos ", "pos", "neg"], ["neg", "pos"], "written in several ways"),
        ([True, False, True], ["False", "True"], ""),
        (["spam", "Spam"], ["Spam", "spam"], "look alike but are different: 'Spam' and 'spam'"),
        (["e\u0301", "\xe9"], ["e\u0301", "\xe9"], r"different: 'e\u0301' and '\xe9'"),
        (["a", "a\u200b"], ["a", "a\u200b"], r"different: 'a' and 'a\u200b'"),
        (["1", "1.0", "2"], ["1", "1.0", "2"], "'1' and '1.0'"),
        ([2**53, 2**53 + 1], [str(2**53), str(2**53 + 1)], ""),
        (["007", "null", "NA"], ["007", "NA", "null"], ""),
    ],
)
def test_labels(labels, names, note):
    table = read(labels)
    assert table.labels == names
    assert {row.values["label"] for row in table.rows} == set(names)
    notes = [text for text in table.notes if "labels" in text and not text[0].isdigit() and "kind" not in text]
    assert any(note in text for text in notes) if note else notes == []


def test_names_of_labels_hold_for_every_way_of_writing():
    assert read([0, "0", 0.0, 1], label_names={"0": "no", "1": "yes"}).labels == ["no", "yes"]
    assert read(["Spam", "spam", "ham"], label_names={"Spam": "spam"}).labels == ["ham", "spam"]


@pytest.mark.parametrize("label", [None, "", " ", float("nan"), [1], {}])
def test_what_is_no_label_is_refused_with_its_row(label):
    with pytest.raises(InputError, match="row 2: field 'label' holds no label"):
        read(["a", label])


def test_labels_that_nearly_every_row_has_for_itself_are_refused_where_there_are_enough_rows():
    messages = [f"Letter {n // 2 if n < 8 else n}" for n in range(100)]
    assert len(read(messages[:49]).labels) == 45
    assert len(read([n % 40 for n in range(50)]).labels) == 40
    with pytest.raises(InputError, match="96 labels in 100 rows; are text and label swapped") as caught:
        read(messages)
    assert caught.value.place == "the rows given, column 'label'"


def test_the_refusal_exchanges_text_and_label_only_where_that_helps():
    rows = [{"class": "ham" if n % 3 else "spam", "sms": f"See you at {n}"} for n in range(60)]
    with pytest.raises(InputError) as caught:
        corpus.read(rows, DataSettings(columns={"text": "class", "label": "sms"}))
    assert "if so: --data.columns '{text: sms, label: class}'" in caught.value.hint
    with pytest.raises(InputError) as caught:
        read([f"Answer {n}" for n in range(60)])
    assert "if so" not in caught.value.hint
    assert "--data.kind completion --data.columns '{prompt: text, completion: label}'" in caught.value.hint


def test_lists_of_labels_are_cut_and_long_labels_too():
    assert list_names(["a", "b"]) == "a, b"
    assert list_names(list("abcde"), 3) == "a, b, c … and 2 more"
    assert list_names([f"a {'long ' * 20}\nlabel"]) == "a long long long long long long long lo…"
    assert "60 labels: 0, 1, 10, 11, 12, 13, 14, 15, 16, 17 … and 50 more" in read([n % 60 for n in range(90)]).notes


def test_a_name_for_a_label_that_no_row_has_is_refused():
    with pytest.raises(InputError, match="no row has the labels 2, 3") as caught:
        read([0, 1, 1.0], label_names={"0": "no", "1": "yes", "2": "perhaps", "3": "never"})
    assert "no, yes" in caught.value.hint
    assert read([0, 1, 2], label_names={"0": "no", "2": "perhaps"}, limit=1).labels == ["no"]  # others may have it


def test_one_label_in_all_rows_is_said():
    assert any("nothing to learn" in note for note in read(["a", "a", "a"]).notes)
    assert not any("nothing to learn" in note for note in read(["a", "b", "a"]).notes)
